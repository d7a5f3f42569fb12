import type { ReactNode } from "react";
import { get } from "../api/client";
import type { RetentionAnswer, Source } from "../api/types";
import { Empty, Failure, Loading } from "../components/basics";
import { JsonView } from "../components/json-view";
import { Value } from "../components/value";
import { flatten, textAt } from "../lib/documents";
import { useRequest } from "../lib/hooks";
import { usePreferences } from "../lib/preferences";

export function RetentionPage(): ReactNode {
  const { zone } = usePreferences();
  const answer = useRequest("retention", (signal) => get<RetentionAnswer>("/retention", signal));
  if (answer.error) {
    return (
      <div className="page">
        <Failure error={answer.error} />
      </div>
    );
  }
  if (!answer.data) return <Loading what="retention" />;
  const { configured, policy, last_run, holds, thinned } = answer.data;
  return (
    <div className="page">
      <h1>Retention</h1>
      {!configured && (
        <section className="card">
          <Empty title="No retention policy is set.">
            <p>
              Nothing is deleted. Set one with <code>gatebook retention</code>.
            </p>
          </Empty>
        </section>
      )}
      <div className="split even">
        {policy && (
          <section className="card">
            <h2>Policy</h2>
            <JsonView value={policy} />
          </section>
        )}
        <section className="card">
          <h2>Last run</h2>
          {last_run ? (
            <dl className="pairs">
              {flatten(last_run).map(([name, value]) => (
                <div key={name}>
                  <dt>{name.replaceAll("_", " ")}</dt>
                  <dd>
                    <Value field={name} value={value} zone={zone} limit={200} />
                  </dd>
                </div>
              ))}
            </dl>
          ) : (
            <p className="none">It has not run yet.</p>
          )}
        </section>
        <List title="Legal holds" rows={holds} none="Nothing is held." />
        <List title="Thinned out by policy" rows={thinned as Source[]} none="All details are there." />
      </div>
    </div>
  );
}

function List({ title, rows, none }: { title: string; rows: Source[]; none: string }): ReactNode {
  const { zone } = usePreferences();
  return (
    <section className="card">
      <h2>{title}</h2>
      {rows.length === 0 && <p className="none">{none}</p>}
      {rows.map((row, at) => (
        <dl className="pairs boxed" key={textAt(row, "id") || at}>
          {flatten(row).map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll("_", " ")}</dt>
              <dd>
                <Value field={name} value={value} zone={zone} limit={200} />
              </dd>
            </div>
          ))}
        </dl>
      ))}
    </section>
  );
}
