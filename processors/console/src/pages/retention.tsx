import type { ReactNode } from "react";
import { get } from "../api/client";
import type { RetentionAnswer, Thinned } from "../api/types";
import { Empty, Failure, Loading } from "../components/basics";
import { Value } from "../components/value";
import { flatten } from "../lib/documents";
import { count } from "../lib/format";
import { useRequest } from "../lib/hooks";
import { usePreferences } from "../lib/preferences";
import type { Zone } from "../lib/time";

export function RetentionPage(): ReactNode {
  const { zone } = usePreferences();
  const answer = useRequest("retention", (signal) => get<RetentionAnswer>("/retention", signal));
  return (
    <div className="page">
      <h1>Retention</h1>
      {answer.error && <Failure error={answer.error} />}
      {answer.loading && <Loading what="retention" />}
      {answer.data && <View answer={answer.data} zone={zone} />}
    </div>
  );
}

function View({ answer, zone }: { answer: RetentionAnswer; zone: Zone }): ReactNode {
  const { configured, last_run, thinned } = answer;
  return (
    <div className="split even">
      <section className="card">
        <h2>Last run</h2>
        {!configured && (
          <Empty title="It has never run: nothing was deleted.">
            <p>
              A policy is set and tried out with <code>gatebook retention plan</code>.
            </p>
          </Empty>
        )}
        {last_run && (
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
        )}
      </section>
      <section className="card">
        <h2>Days without all details: {count(thinned.length)}</h2>
        {thinned.length === 0 ? <p className="none">All details are there.</p> : <Days days={thinned} zone={zone} />}
      </section>
    </div>
  );
}

function Days({ days, zone }: { days: Thinned[]; zone: Zone }): ReactNode {
  return (
    <div className="short-scroll" role="region" aria-label="Days without all details" tabIndex={0}>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">From</th>
            <th scope="col">To, not included</th>
            <th scope="col">What is left</th>
          </tr>
        </thead>
        <tbody>
          {days.map((day, at) => (
            <tr key={at}>
              <td>
                <Value field="from" value={day.from} zone={zone} />
              </td>
              <td>
                <Value field="to" value={day.to} zone={zone} />
              </td>
              <td>{day.keep_one_in ? `one in ${count(day.keep_one_in)}, and summaries` : "summaries alone"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
