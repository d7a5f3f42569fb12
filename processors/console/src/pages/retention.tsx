import type { ReactNode } from "react";
import { get } from "../api/client";
import type { PolicyRule, RetentionAnswer, Source, Thinned } from "../api/types";
import { Empty, Failure, Loading } from "../components/basics";
import { Value } from "../components/value";
import { flatten } from "../lib/documents";
import { count, plural } from "../lib/format";
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
  const { configured, last_run, thinned, policy, holds, subjects_held } = answer;
  return (
    <div className="split even">
      <section className="card">
        <h2>Last run</h2>
        {!configured && (
          <Empty title="It has never run: nothing was deleted.">
            <p>
              What a policy would delete is told by <code>gatebook retention plan</code>.
            </p>
          </Empty>
        )}
        {last_run && <Pairs of={last_run} zone={zone} />}
      </section>
      <section className="card">
        <h2>Days without all details: {count(thinned.length)}</h2>
        {thinned.length === 0 ? <p className="none">All details are there.</p> : <Days days={thinned} zone={zone} />}
      </section>
      {policy && (
        <section className="card">
          <h2>Policy of the latest run</h2>
          <Pairs of={{ ...policy, rules: policy.rules.map(ruleText) }} zone={zone} />
        </section>
      )}
      {holds && (
        <section className="card">
          <h2>Holds: {count(holds.length)}</h2>
          {subjects_held !== null && <p className="none">{plural(subjects_held, "person", "persons")} under hold beside.</p>}
          {holds.map((hold) => (
            <Pairs key={hold.id} of={Object.fromEntries(Object.entries(hold).filter(([, value]) => value !== ""))} zone={zone} />
          ))}
        </section>
      )}
    </div>
  );
}

/** A rule in one line, such as `brief: tenant=brief-*; metadata 3d`. */
function ruleText(rule: PolicyRule): string {
  const match = Object.entries(rule.match).map(([name, patterns]) => `${name}=${patterns.join(",")}`);
  const layers = (["metadata", "redacted", "full"] as const).flatMap((layer) => (rule[layer] ? [`${layer} ${rule[layer]}`] : []));
  const sample = rule.keep_one_in > 1 ? [`one in ${count(rule.keep_one_in)} after ${rule.sample_after}`] : [];
  return `${rule.name}: ${[match.join(" ") || "everything", ...layers, ...sample].join("; ")}`;
}

function Pairs({ of, zone }: { of: Source; zone: Zone }): ReactNode {
  return (
    <dl className="pairs">
      {flatten(of).map(([name, value]) => (
        <div key={name}>
          <dt>{name.replaceAll("_", " ")}</dt>
          <dd>
            <Value field={name} value={value} zone={zone} limit={200} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** What is left of a day's details beside the summaries. */
function left(day: Thinned): string {
  if (day.all_gone) return "summaries, and what is under hold";
  return day.keep_one_in ? `one in ${count(day.keep_one_in)}, and summaries` : "some details, and summaries";
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
              <td>{left(day)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
