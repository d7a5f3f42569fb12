import { useState, type ReactNode } from "react";
import { get, path, post, remove } from "../api/client";
import type { SavedSearch } from "../api/types";
import { useAct, useRequest } from "../lib/hooks";
import { shown } from "../lib/hostile";
import { combined } from "../lib/query";
import type { SearchState } from "../lib/search-state";
import { may, useSession } from "../lib/session";
import { DEFAULT_LAST, isInstant, isRelative, lengthSeconds, type Range } from "../lib/time";
import { Button, Failure, Loading, Popover, SafeText } from "./basics";

export function SavedSearches(props: { state: SearchState; onOpen: (changed: Partial<SearchState>) => void }): ReactNode {
  const session = useSession();
  const [open, setOpen] = useState(false);
  if (!may(session, "saved_searches")) return null;
  return (
    <Popover open={open} onOpen={setOpen} icon="star" text="Saved" align="right">
      <Saved
        {...props}
        onOpen={(changed) => {
          setOpen(false);
          props.onOpen(changed);
        }}
      />
    </Popover>
  );
}

function rangeOf(saved: SavedSearch): Range {
  if (isInstant(saved.since) && isInstant(saved.until)) return { from: saved.since, to: saved.until };
  return { last: lengthSeconds(saved.since) === null ? DEFAULT_LAST : saved.since };
}

function Saved({ state, onOpen }: { state: SearchState; onOpen: (changed: Partial<SearchState>) => void }): ReactNode {
  const [changes, setChanges] = useState(0);
  const [name, setName] = useState("");
  const list = useRequest(`saved ${changes}`, (signal) => get<{ saved_searches: SavedSearch[] }>("/saved-searches", signal));
  const save = useAct(async () => {
    const { range, kind, columns, sort } = state;
    const times = isRelative(range) ? { since: range.last } : { since: range.from, until: range.to };
    await post("/saved-searches", { name: name.trim(), query: combined(state.query, state.filters), kind, columns, sort, ...times });
    setName("");
    setChanges((before) => before + 1);
  });
  const drop = useAct(async (id: string) => {
    await remove(path`/saved-searches/${id}`);
    setChanges((before) => before + 1);
  });
  const found = list.data?.saved_searches ?? [];
  return (
    <div className="saved">
      <form
        className="stacked-form"
        onSubmit={(event) => {
          event.preventDefault();
          save.run();
        }}
      >
        <label className="name">
          Save this search as
          <input required maxLength={100} value={name} onChange={(event) => setName(event.target.value)} />
        </label>
        <button type="submit" className="button primary" disabled={save.busy || !name.trim()}>
          Save
        </button>
      </form>
      {[save.error, drop.error, list.error].map((error, at) => error && <Failure key={at} error={error} />)}
      {list.loading && !list.data && <Loading what="saved searches" />}
      {list.data && found.length === 0 && <p className="none">None yet.</p>}
      <ul className="listed">
        {found.map((saved) => (
          <li key={saved.id}>
            <button
              type="button"
              className="link"
              onClick={() => onOpen({ query: saved.query, filters: [], range: rangeOf(saved), kind: saved.kind, columns: saved.columns.length ? saved.columns : state.columns, sort: saved.sort })}
            >
              <SafeText text={saved.name} limit={80} />
            </button>
            {saved.shared && <span className="tag">shared</span>}
            {saved.mine && <Button kind="quiet" icon="trash" label={`Delete ${shown(saved.name, 40)}`} onClick={() => drop.run(saved.id)} />}
          </li>
        ))}
      </ul>
    </div>
  );
}
