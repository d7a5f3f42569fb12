import { useEffect, useState, type ReactNode } from "react";
import { get, path, post, queryString } from "../api/client";
import type { FindingAnswer, FindingItem, FindingsAnswer, Source, VerdictTold } from "../api/types";
import { Button, Empty, Failure, Icon, Link, Loading, SafeText } from "../components/basics";
import { BaselineChart } from "../components/charts";
import { JsonView } from "../components/json-view";
import { FieldName, Value } from "../components/value";
import { numberAt, textAt, valueAt } from "../lib/documents";
import { count, figure, plural } from "../lib/format";
import { useAct, useRequest, type Requested } from "../lib/hooks";
import { usePreferences } from "../lib/preferences";
import { may, useSession } from "../lib/session";
import { roughly, type Zone } from "../lib/time";
import { useRowKeys } from "./search";

/** A word goes through Kafka to the index; so long after it the page looks again. */
const WORD_IS_INDEXED_MS = 1500;

/** Gravest first. */
const SEVERITIES = ["critical", "error", "warning", "info"];

const SINCE: [string, string][] = [
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["30d", "Last 30 days"],
  ["365d", "Last year"],
];

export function FindingsPage(): ReactNode {
  const { zone } = usePreferences();
  const [state, setState] = useState("open");
  const [since, setSince] = useState("7d");
  const [severity, setSeverity] = useState("");
  const question = { state, since, severity };
  const { first, answers, add } = useFindings(question);
  const [order, setOrder] = useState<Order>("time");
  const latest = answers.at(-1);
  const items = ordered(incidents(answers), order);
  useRowKeys(items.map((item) => ({ id: item.incident, index: "", kind: "finding", source: item.finding })), null, () => undefined);
  return (
    <div className="page">
      <div className="page-head">
        <h1>Findings</h1>
        {latest && (
          <p className="count" role="status">
            <strong>{count(items.length)}</strong> of <strong>{plural(latest.total, "incident")}</strong>
          </p>
        )}
        <span className="spacer" />
        <div className="segments" role="group" aria-label="State">
          {["open", "all"].map((name) => (
            <Button key={name} pressed={state === name} onClick={() => setState(name)}>
              {name === "open" ? "Open" : "All"}
            </Button>
          ))}
        </div>
        <select aria-label="Severity" value={severity} onChange={(event) => setSeverity(event.target.value)}>
          <option value="">All severities</option>
          {SEVERITIES.map((name) => (
            <option key={name} value={name}>
              {name}
              {latest && ` (${count(latest.by_severity[name] ?? 0)})`}
            </option>
          ))}
        </select>
        <select aria-label="Since" value={since} onChange={(event) => setSince(event.target.value)}>
          {SINCE.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </div>
      {first.error && <Failure error={first.error} />}
      {latest && !latest.complete && <Unread answer={latest} zone={zone} />}
      {first.loading && items.length === 0 && <Loading what="findings" />}
      {latest && !first.loading && items.length === 0 && (
        <section className="card">
          <Empty title={severity && anyIn(latest) ? "None is of this severity." : state === "open" ? "Nothing is open." : "No finding in this time."}>
            <p>Detectors look at every event as it comes in.</p>
          </Empty>
        </section>
      )}
      {items.length > 0 && (
        <section className={`card flush ${first.loading ? "stale" : ""}`}>
          <div className="table-scroll" role="region" aria-label="Findings" tabIndex={0}>
            <table className="results findings">
              <thead>
                <tr>
                  <Sorter name="Last seen" by="time" order={order} onOrder={setOrder} />
                  <Sorter name="Severity" by="severity" order={order} onOrder={setOrder} />
                  {["Finding", "Of", "Observed", "Threshold", "State", "Verdict"].map((name) => (
                    <th key={name} scope="col" className={name === "Observed" || name === "Threshold" ? "numeric" : ""}>
                      {name}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {items.map((item) => (
                  <FindingRow key={item.incident} item={item} zone={zone} />
                ))}
              </tbody>
            </table>
          </div>
          <More key={queryString(question)} question={question} answers={answers} onAnswer={add} disabled={first.loading} />
        </section>
      )}
    </div>
  );
}

interface Findings {
  first: Requested<FindingsAnswer>;
  /** The first one and those that go on from it; none before the first is there. */
  answers: FindingsAnswer[];
  add: (answer: FindingsAnswer) => void;
}

/** The answers to a question. Another question starts anew, and what still comes of the one before is dropped. */
function useFindings(question: Record<string, string>): Findings {
  const asked = `/findings${queryString(question)}`;
  const first = useRequest(asked, (signal) => get<FindingsAnswer>(asked, signal));
  const { data } = first;
  const [later, setLater] = useState<{ to: FindingsAnswer | null; answers: FindingsAnswer[] }>({ to: null, answers: [] });
  useEffect(() => setLater({ to: data, answers: [] }), [data]);
  return {
    first,
    answers: data ? [data, ...(later.to === data ? later.answers : [])] : [],
    add: (answer) => setLater((now) => (now.to === data ? { to: data, answers: [...now.answers, answer] } : now)),
  };
}

function anyIn(answer: FindingsAnswer): boolean {
  return Object.values(answer.by_severity).some((found) => found > 0);
}

/** Each incident once: as answers are of their own moment, one may be in two of them. */
function incidents(answers: FindingsAnswer[]): FindingItem[] {
  return [...new Map(answers.flatMap((answer) => answer.findings).map((item) => [item.incident, item])).values()];
}

function Unread({ answer, zone }: { answer: FindingsAnswer; zone: Zone }): ReactNode {
  const one = answer.unread === 1;
  return (
    <div className="notice">
      <Icon name="warn" />
      <p>
        The oldest {one ? "finding" : `${count(answer.unread)} findings`} (before <Value field="@timestamp" value={answer.unread_before} zone={zone} />){" "}
        {one ? "was" : "were"} not read; incidents that only {one ? "it tells" : "they tell"} of are missing.
      </p>
    </div>
  );
}

/** Asks for those that the answers so far left out. */
function More(props: {
  question: Record<string, string>;
  answers: FindingsAnswer[];
  onAnswer: (answer: FindingsAnswer) => void;
  disabled: boolean;
}): ReactNode {
  const { question, answers, onAnswer, disabled } = props;
  const answered = answers.reduce((sum, answer) => sum + answer.findings.length, 0);
  const total = answers.at(-1)?.total ?? 0;
  const act = useAct(async () => {
    onAnswer(await get<FindingsAnswer>(`/findings${queryString({ ...question, offset: String(answered) })}`));
  });
  if (answered >= total) return null;
  return (
    <>
      {act.error && <Failure error={act.error} />}
      <div className="more-rows">
        <Button onClick={act.run} disabled={disabled || act.busy}>
          {act.busy ? "Loading…" : "Show more"}
        </Button>
        <span>
          {count(answered)} of {count(total)}: the gravest are chosen first, of these the newest
        </span>
      </div>
    </>
  );
}

type Order = "time" | "severity";

function severityOf(item: FindingItem): string {
  return textAt(item.finding, "gatebook.severity");
}

/** Newest first, also over several answers; by severity, the newest of each stay first. */
function ordered(items: FindingItem[], order: Order): FindingItem[] {
  const seen = (item: FindingItem): string => textAt(item.finding, "@timestamp");
  const newest = [...items].sort((a, b) => (seen(a) < seen(b) ? 1 : seen(a) > seen(b) ? -1 : 0));
  if (order === "time") return newest;
  const rank = (item: FindingItem): number => {
    const at = SEVERITIES.indexOf(severityOf(item));
    return at < 0 ? SEVERITIES.length : at;
  };
  return newest.sort((a, b) => rank(a) - rank(b));
}

function Sorter(props: { name: string; by: Order; order: Order; onOrder: (order: Order) => void }): ReactNode {
  const { name, by, order, onOrder } = props;
  return (
    <th scope="col" aria-sort={order === by ? "descending" : undefined}>
      <button type="button" className={`sorter ${order === by ? "descending" : ""}`} onClick={() => onOrder(by)}>
        {name}
        <Icon name="down" />
      </button>
    </th>
  );
}

function FindingRow({ item, zone }: { item: FindingItem; zone: Zone }): ReactNode {
  const { finding } = item;
  const at = (name: string): ReactNode => <Value field={name} value={valueAt(finding, name)} zone={zone} limit={80} />;
  return (
    <tr>
      <td>{at("@timestamp")}</td>
      <td>{at("gatebook.severity")}</td>
      <td className="wrapping">
        <a className="strong" href={path`/finding/${item.incident}`} data-link="" data-row={item.incident}>
          <SafeText text={textAt(finding, "rule.name") || textAt(finding, "rule.id")} limit={80} />
        </a>
        <div className="secondary">
          <Value field="event.reason" value={valueAt(finding, "event.reason")} zone={zone} limit={160} />
        </div>
      </td>
      <td>{at("gatebook.principal")}</td>
      <td className="numeric">{at("gatebook.observed")}</td>
      <td className="numeric">{at("gatebook.threshold")}</td>
      <td>
        <State name={item.state} />
      </td>
      <td>{item.verdict ? <span className="tag">{item.verdict.replaceAll("_", " ")}</span> : <span className="none">–</span>}</td>
    </tr>
  );
}

function State({ name }: { name: string }): ReactNode {
  return <span className={`tag ${["firing", "resolved"].includes(name) ? `state-${name}` : ""}`}>{name || "unknown"}</span>;
}

export function FindingPage({ incident }: { incident: string }): ReactNode {
  const { zone } = usePreferences();
  const [changes, setChanges] = useState(0);
  const answer = useRequest(`${incident} ${changes}`, (signal) => get<FindingAnswer>(path`/findings/${incident}`, signal));
  if (answer.error) {
    return (
      <div className="page narrow">
        <Failure error={answer.error} />
        <Link to="/findings">All findings</Link>
      </div>
    );
  }
  if (!answer.data) return <Loading what="the finding" />;
  return <FindingView incident={incident} answer={answer.data} zone={zone} onChange={() => setChanges(changes + 1)} />;
}

function FindingView(props: { incident: string; answer: FindingAnswer; zone: Zone; onChange: () => void }): ReactNode {
  const { incident, answer, zone, onChange } = props;
  const { finding, baseline } = answer;
  const session = useSession();
  return (
    <div className="page">
      <div className="page-head">
        <h1>
          <SafeText text={textAt(finding, "rule.name") || textAt(finding, "rule.id")} limit={120} />
        </h1>
        <Value field="gatebook.severity" value={valueAt(finding, "gatebook.severity")} zone={zone} />
        <State name={answer.state} />
        <span className="spacer" />
        {answer.state === "firing" && may(session, "verdict") && <Acknowledge incident={incident} onDone={onChange} />}
        <Link to="/findings">All findings</Link>
      </div>
      <p className="lead">
        <Value field="event.reason" value={valueAt(finding, "event.reason")} zone={zone} limit={400} />
      </p>
      <div className="split">
        <div className="main-column">
          <section className="card">
            <h2>
              {baseline?.unit ? <SafeText text={baseline.unit} limit={60} /> : "The figure"} over time
            </h2>
            {baseline && baseline.series.length > 0 ? (
              <>
                <BaselineChart baseline={baseline} zone={zone} />
                <p className="chart-note">
                  <Figure name="observed" value={baseline.observed} /> <Figure name="baseline" value={baseline.baseline} />{" "}
                  <Figure name="threshold" value={baseline.threshold} /> one point is {roughly(baseline.interval_seconds)}; the band is the window.
                  {!baseline.exact && " The unit itself cannot be counted from the log: accesses are drawn instead."}
                </p>
              </>
            ) : (
              <p className="none">There is nothing to draw: the events are gone, or the finding names no search.</p>
            )}
          </section>
          <Evidence finding={finding} zone={zone} />
          <section className="card">
            <h2>Course</h2>
            <ol className="timeline">
              {answer.members.map((member) => (
                <li key={member.id}>
                  <Value field="@timestamp" value={valueAt(member.source, "@timestamp")} zone={zone} />
                  <Value field="event.action" value={valueAt(member.source, "event.action")} zone={zone} />
                  <strong>
                    <Value field="event.reason" value={valueAt(member.source, "event.reason")} zone={zone} limit={300} />
                  </strong>
                </li>
              ))}
            </ol>
          </section>
        </div>
        <div className="main-column">
          {may(session, "verdict") && <VerdictForm incident={incident} before={answer.verdicts.findLast((told) => told.verdict !== "")} onDone={onChange} />}
          <section className="card">
            <h2>Verdicts</h2>
            {answer.verdicts.length === 0 && <p className="none">None yet.</p>}
            <ol className="timeline">
              {answer.verdicts.map((told, at) => (
                <li key={at}>
                  <Value field="at" value={told.at} zone={zone} />
                  <span className="tag">{(told.verdict || told.action).replaceAll("_", " ")}</span>
                  <strong>
                    <SafeText text={told.by} limit={80} />
                  </strong>
                  <span className="detail">
                    <SafeText text={told.note} limit={500} />
                  </span>
                </li>
              ))}
            </ol>
          </section>
          <About finding={finding} zone={zone} />
        </div>
      </div>
    </div>
  );
}

function Figure({ name, value }: { name: string; value: number | null }): ReactNode {
  return value === null ? null : (
    <span className={`figure-of ${name}`}>
      {name} <strong>{figure(value)}</strong>
    </span>
  );
}

function Evidence({ finding, zone }: { finding: Source; zone: Zone }): ReactNode {
  const ids = valueAt(finding, "gatebook.evidence");
  const list = Array.isArray(ids) ? ids.filter((id): id is string => typeof id === "string") : typeof ids === "string" ? [ids] : [];
  const all = numberAt(finding, "gatebook.evidence_count") ?? list.length;
  const query = textAt(finding, "gatebook.search");
  const params = new URLSearchParams({ q: query, from: textAt(finding, "event.start"), to: after(textAt(finding, "event.end")), own: "1" });
  return (
    <section className="card">
      <div className="page-head">
        <h2>
          Evidence: {count(list.length)} of {plural(all, "event")}
        </h2>
        <span className="spacer" />
        {query && query !== "[masked]" && <Link to={`/search?${params.toString()}`}>Show all in the search</Link>}
      </div>
      {query && (
        <p className="query-line">
          <Value field="gatebook.search" value={query} zone={zone} limit={300} />
        </p>
      )}
      <ul className="evidence">
        {list.map((id) => (
          <li key={id}>
            <Link to={path`/event/${id}`}>
              <SafeText text={id} limit={60} />
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** An instant a millisecond later: the end of a search is not included. */
function after(instant: string): string {
  const at = Date.parse(instant);
  return Number.isNaN(at) ? instant : new Date(at + 1).toISOString();
}

const SHOWN = [
  "rule.id",
  "rule.version",
  "gatebook.principal",
  "user.id",
  "source.ip",
  "service.name",
  "organization.id",
  "gatebook.models",
  "event.start",
  "event.end",
  "gatebook.window_seconds",
  "gatebook.occurrences",
  "event.risk_score",
  "gatebook.page",
  "gatebook.team",
  "threat.framework",
  "threat.technique.id",
  "rule.reference",
  "gatebook.incident",
];

function About({ finding, zone }: { finding: Source; zone: Zone }): ReactNode {
  const [json, setJson] = useState(false);
  return (
    <section className="card">
      <h2>About it</h2>
      <dl className="pairs">
        {SHOWN.map((name) => [name, valueAt(finding, name)] as const)
          .filter(([, value]) => value !== undefined && value !== null && value !== "")
          .map(([name, value]) => (
            <div key={name}>
              <dt>
                <FieldName name={name} />
              </dt>
              <dd>
                <Value field={name} value={value} zone={zone} limit={200} />
              </dd>
            </div>
          ))}
      </dl>
      <button type="button" className="more" aria-expanded={json} onClick={() => setJson(!json)}>
        {json ? "Hide JSON" : "JSON"}
      </button>
      {json && <JsonView value={finding} />}
    </section>
  );
}

/** For whoever takes it on: the others see that somebody has it in hand. */
function Acknowledge({ incident, onDone }: { incident: string; onDone: () => void }): ReactNode {
  const [said, setSaid] = useState("");
  const act = useAct(async () => {
    await post(path`/findings/${incident}/acknowledge`, {});
    setSaid("Recorded. It shows here in a moment.");
    window.setTimeout(onDone, WORD_IS_INDEXED_MS);
  });
  return (
    <>
      <span role="status">{said}</span>
      {act.error && <Failure error={act.error} />}
      {!said && (
        <Button onClick={act.run} disabled={act.busy}>
          {act.busy ? "Recording…" : "Acknowledge"}
        </Button>
      )}
    </>
  );
}

const VERDICTS: [string, string][] = [
  ["true_positive", "True positive: it is what it says"],
  ["benign", "Benign: it happened, and is fine"],
  ["false_positive", "False positive: it did not happen"],
];

/** `before` is the verdict that another one would replace: that wants a reason. */
function VerdictForm({ incident, before, onDone }: { incident: string; before: VerdictTold | undefined; onDone: () => void }): ReactNode {
  const [verdict, setVerdict] = useState("");
  const [note, setNote] = useState("");
  const [said, setSaid] = useState("");
  const give = useAct(async () => {
    await post(path`/findings/${incident}/verdict`, { verdict, note: note.trim() });
    setSaid("Recorded. It shows here in a moment.");
    setNote("");
    window.setTimeout(onDone, WORD_IS_INDEXED_MS);
  });
  return (
    <section className="card">
      <h2>Your verdict</h2>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          give.run();
        }}
      >
        <fieldset className="choices">
          <legend className="hidden">Verdict</legend>
          {before && (
            <p className="none">
              It replaces {before.verdict.replaceAll("_", " ")} by <SafeText text={before.by} limit={80} />.
            </p>
          )}
          {VERDICTS.map(([value, name]) => (
            <label key={value}>
              <input type="radio" name="verdict" checked={verdict === value} onChange={() => setVerdict(value)} /> {name}
            </label>
          ))}
        </fieldset>
        <label className="stacked">
          {before ? "Why it is another one" : "Note"}
          <textarea rows={2} maxLength={500} required={before !== undefined} value={note} onChange={(event) => setNote(event.target.value)} />
        </label>
        <button type="submit" className="button primary" disabled={!verdict || give.busy || (before !== undefined && note.trim() === "")}>
          {give.busy ? "Recording…" : "Give verdict"}
        </button>
        <p role="status">{said}</p>
        {give.error && <Failure error={give.error} />}
      </form>
    </section>
  );
}
