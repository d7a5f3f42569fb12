import { useState, type ReactNode } from "react";
import { get, path, post, remove } from "../api/client";
import type { TokenTold } from "../api/types";
import { Button, Dialog, Empty, Failure, Loading, SafeText } from "../components/basics";
import { Value } from "../components/value";
import { useAct, useRequest } from "../lib/hooks";
import { shown } from "../lib/hostile";
import { usePreferences } from "../lib/preferences";
import { useSession } from "../lib/session";

const ROLES = ["viewer", "analyst", "privacy_officer", "admin"];

export function TokensPage(): ReactNode {
  const { zone } = usePreferences();
  const [changes, setChanges] = useState(0);
  const [making, setMaking] = useState(false);
  const list = useRequest(`tokens ${changes}`, (signal) => get<{ tokens: TokenTold[] }>("/tokens", signal));
  const revoke = useAct(async (token: TokenTold) => {
    if (!window.confirm(`Revoke the token ${shown(token.name, 60)}? Whoever uses it is shut out at once.`)) return;
    await remove(path`/tokens/${token.id}`);
    setChanges((before) => before + 1);
  });
  return (
    <div className="page">
      <div className="page-head">
        <h1>API tokens</h1>
        <span className="spacer" />
        <Button kind="primary" icon="plus" onClick={() => setMaking(true)}>
          New token
        </Button>
      </div>
      {[list.error, revoke.error].map((error, at) => error && <Failure key={at} error={error} />)}
      {list.loading && !list.data && <Loading what="tokens" />}
      {list.data && (
        <section className="card flush">
          {list.data.tokens.length === 0 ? (
            <Empty title="There is no token." />
          ) : (
            <div className="table-scroll" role="region" aria-label="Tokens" tabIndex={0}>
              <table className="results still">
                <thead>
                  <tr>
                    {["Name", "State", "Roles", "Tenants", "Made", "Ends", "Last used", "Act"].map((name) => (
                      <th key={name} scope="col">
                        {name}
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  {list.data.tokens.map((token) => (
                    <tr key={token.id}>
                      <td>
                        <SafeText text={token.name} limit={60} />
                      </td>
                      <td>
                        <span className={`tag ${token.state === "active" ? "outcome-success" : ""}`}>{token.state}</span>
                      </td>
                      <td>{token.roles.join(", ").replaceAll("_", " ")}</td>
                      <td>{token.tenants === null ? "all" : <SafeText text={token.tenants.join(", ")} limit={60} />}</td>
                      {[token.created_at, token.expires_at, token.last_used_at].map((at, index) => (
                        <td key={index}>
                          <Value field="at" value={at} zone={zone} />
                        </td>
                      ))}
                      <td>{token.state === "active" && <Button kind="quiet" icon="trash" label={`Revoke ${shown(token.name, 40)}`} onClick={() => revoke.run(token)} />}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </section>
      )}
      {making && <NewToken onClose={() => setMaking(false)} onMade={() => setChanges((before) => before + 1)} />}
    </div>
  );
}

function NewToken({ onClose, onMade }: { onClose: () => void; onMade: () => void }): ReactNode {
  const { caller } = useSession();
  const [name, setName] = useState("");
  const [roles, setRoles] = useState<string[]>(["viewer"]);
  // Nobody gives a token all tenants by leaving something empty.
  const [reach, setReach] = useState<"" | "all" | "named">(caller.tenants === null ? "" : "named");
  const [tenants, setTenants] = useState("");
  const [days, setDays] = useState(90);
  const [token, setToken] = useState("");
  const named = tenants.split(",").map((one) => one.trim()).filter(Boolean);
  const hasReach = reach === "all" || (reach === "named" && named.length > 0);
  const make = useAct(async () => {
    if (!hasReach) return;
    const made = await post<{ token: string }>("/tokens", { name: name.trim(), roles, tenants: reach === "all" ? null : named, days });
    setToken(made.token);
    onMade();
  });
  if (token) {
    return (
      <Dialog title="The new token" onClose={onClose}>
        <p>Copy it now: it is shown this once, and only its digest is kept.</p>
        <p className="secret">
          <code>{token}</code>
        </p>
        <Button kind="primary" onClick={onClose}>
          Done
        </Button>
      </Dialog>
    );
  }
  return (
    <Dialog title="New API token" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          make.run();
        }}
      >
        <label className="stacked">
          What it is for
          <input required maxLength={80} value={name} onChange={(event) => setName(event.target.value)} />
        </label>
        <fieldset className="choices">
          <legend>Roles</legend>
          {ROLES.map((role) => (
            <label key={role}>
              <input
                type="checkbox"
                checked={roles.includes(role)}
                onChange={() => setRoles(roles.includes(role) ? roles.filter((one) => one !== role) : [...roles, role])}
              />{" "}
              {role.replaceAll("_", " ")}
            </label>
          ))}
        </fieldset>
        <fieldset className="choices">
          <legend>Tenants</legend>
          {caller.tenants === null && (
            <label>
              <input type="radio" name="reach" checked={reach === "all"} onChange={() => setReach("all")} /> All tenants, also those to come
            </label>
          )}
          <label>
            <input type="radio" name="reach" checked={reach === "named"} onChange={() => setReach("named")} /> These alone
          </label>
          {reach === "named" && (
            <label className="stacked">
              Their names, separated by commas
              <input required value={tenants} onChange={(event) => setTenants(event.target.value)} />
            </label>
          )}
        </fieldset>
        <label className="stacked">
          Days it holds
          <input type="number" min={1} max={365} value={days} onChange={(event) => setDays(event.target.valueAsNumber || 1)} />
        </label>
        <button type="submit" className="button primary" disabled={make.busy || !name.trim() || roles.length === 0 || !hasReach}>
          Make it
        </button>
        {make.error && <Failure error={make.error} />}
      </form>
    </Dialog>
  );
}
