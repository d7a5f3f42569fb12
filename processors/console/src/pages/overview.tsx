import { useState, type ReactNode } from "react";
import { get, serverNow } from "../api/client";
import type { OverviewAnswer, Top } from "../api/types";
import { Button, Empty, Failure, Link, Loading, SafeText } from "../components/basics";
import { Traffic } from "../components/charts";
import { MASK, Masked, Value } from "../components/value";
import { plain } from "../lib/documents";
import { bytes, compact, count, percent, plural } from "../lib/format";
import { useRequest } from "../lib/hooks";
import { usePreferences } from "../lib/preferences";
import { may, useSession } from "../lib/session";
import { roughly, type Zone } from "../lib/time";

const SPANS = ["1h", "24h", "7d", "30d"];

export function OverviewPage(): ReactNode {
  const { zone } = usePreferences();
  const [since, setSince] = useState("24h");
  const [asked, setAsked] = useState(0);
  const answer = useRequest(`${since} ${asked}`, (signal) => get<OverviewAnswer>(`/overview?since=${since}`, signal));
  return (
    <div className="page">
      <div className="page-head">
        <h1>Overview</h1>
        {answer.data && answer.data.source !== "details" && <span className="badge note">answered from summaries{answer.data.source === "both" ? " and details" : ""}</span>}
        <span className="spacer" />
        <div className="segments" role="group" aria-label="Time range">
          {SPANS.map((span) => (
            <Button key={span} pressed={since === span} onClick={() => setSince(span)}>
              {span}
            </Button>
          ))}
        </div>
        <Button kind="quiet" icon="refresh" label="Load again" onClick={() => setAsked(serverNow().getTime())} />
      </div>
      {answer.error && <Failure error={answer.error} />}
      {answer.loading && !answer.data && <Loading what="the overview" />}
      {answer.data && <View answer={answer.data} zone={zone} stale={answer.loading} />}
    </div>
  );
}

function View({ answer, zone, stale }: { answer: OverviewAnswer; zone: Zone; stale: boolean }): ReactNode {
  const { total, errors, tokens, lag } = answer;
  return (
    <div className={`overview ${stale ? "stale" : ""}`}>
      <Tile name="Accesses" value={compact(total)} note={count(total)} />
      <Tile name="Not successful" value={percent(errors.total, total)} note={plural(errors.total, "access", "accesses")} bad={errors.total > 0 && errors.total / Math.max(1, total) > 0.05} />
      <Tile name="Tokens in" value={compact(tokens.input)} note={count(tokens.input)} />
      <Tile name="Tokens out" value={compact(tokens.output)} note={count(tokens.output)} />
      <Tile name="Newest event" value={lag ? `${roughly(lag.seconds)} ago` : "none"} note="taken in and searchable" bad={lag !== null && lag.seconds > 300} />
      <section className="card wide">
        <h2>Traffic</h2>
        <Traffic
          buckets={answer.traffic}
          from={answer.from}
          to={answer.to}
          intervalSeconds={answer.interval_seconds}
          zone={zone}
          label={`${plural(total, "access", "accesses")}, of which ${count(errors.total)} did not succeed; one bar is ${roughly(answer.interval_seconds)}`}
        />
        <p className="chart-note">
          <span className="legend">
            <span className="dot part-success" /> all
          </span>
          <span className="legend">
            <span className="dot part-failure" /> failures
          </span>
          one bar is {roughly(answer.interval_seconds)}; without Gatebook's own
        </p>
      </section>
      {answer.storage && <PipelineCard roles={answer.pipeline} />}
      <Ranking title="Top models" field="gen_ai.request.model" rows={answer.top_models} answer={answer} />
      <Ranking title="Top principals" field="gatebook.principal" rows={answer.top_principals} answer={answer} />
      <section className="card">
        <h2>Why accesses failed</h2>
        {errors.total === 0 && <Empty title="None failed." />}
        {errors.total > 0 && answer.figures_source !== "details" && <p className="chart-note">Reasons stand in details alone: those that are gone are not among them.</p>}
        <Bars rows={errors.reasons.map((reason) => ({ value: plain(reason.value), count: reason.count, note: percent(reason.count, errors.total) }))} field="event.reason" answer={answer} />
      </section>
      <section className="card half">
        <h2>Detectors</h2>
        {answer.detectors.length === 0 ? (
          <Empty title="No detector fired." />
        ) : (
          <table className="plain-table">
            <thead>
              <tr>
                <th scope="col">Rule</th>
                <th scope="col" className="numeric">
                  Firing
                </th>
                <th scope="col" className="numeric">
                  Resolved
                </th>
                <th scope="col">Last</th>
              </tr>
            </thead>
            <tbody>
              {answer.detectors.map((detector) => (
                <tr key={detector.rule}>
                  <td>
                    <SafeText text={detector.name || detector.rule} limit={60} /> <span className="none">{detector.name && <SafeText text={detector.rule} limit={40} />}</span>
                  </td>
                  <td className="numeric">{count(detector.firing)}</td>
                  <td className="numeric">{count(detector.resolved)}</td>
                  <td>
                    <Value field="@timestamp" value={detector.last} zone={zone} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </section>
      <StorageCard answer={answer} />
    </div>
  );
}

function Tile({ name, value, note, bad = false }: { name: string; value: string; note: string; bad?: boolean }): ReactNode {
  return (
    <section className={`card tile ${bad ? "bad" : ""}`}>
      <h2>{name}</h2>
      <p className="tile-value">{value}</p>
      <p className="tile-note">{note}</p>
    </section>
  );
}

function Ranking({ title, field, rows, answer }: { title: string; field: string; rows: Top[]; answer: OverviewAnswer }): ReactNode {
  return (
    <section className="card">
      <h2>{title}</h2>
      {rows.length === 0 && <Empty title="Nothing in this time." />}
      <Bars rows={rows.map((row) => ({ value: row.value, count: row.count, note: `${compact(row.tokens)} tokens` }))} field={field} answer={answer} />
    </section>
  );
}

function Bars({ rows, field, answer }: { rows: { value: string; count: number; note: string }[]; field: string; answer: OverviewAnswer }): ReactNode {
  const session = useSession();
  const most = Math.max(1, ...rows.map((row) => row.count));
  const link = (value: string): string =>
    `/search?${new URLSearchParams([["f", `+${field}=${value}`], ["from", answer.from], ["to", answer.to]]).toString()}`;
  return (
    <ul className="bars">
      {rows.map((row) => (
        <li key={row.value}>
          <span className="bars-name">
            {row.value === MASK ? (
              <Masked />
            ) : may(session, "search") ? (
              <Link to={link(row.value)}>
                <SafeText text={row.value} limit={60} />
              </Link>
            ) : (
              <SafeText text={row.value} limit={60} />
            )}
          </span>
          <span className="bars-count">{count(row.count)}</span>
          <span className="bars-note">{row.note}</span>
          <progress max={most} value={row.count} aria-hidden="true" />
        </li>
      ))}
    </ul>
  );
}

/** What each role does, in the order events go through them. */
const TASKS: Record<string, string> = { intake: "opens, redacts, seals", index: "writes to the index", detect: "looks for anomalies", notify: "sends alerts" };

function PipelineCard({ roles }: { roles: OverviewAnswer["pipeline"] }): ReactNode {
  return (
    <section className="card wide">
      <h2>Pipeline</h2>
      {!roles && <p className="none">Kafka does not tell what waits.</p>}
      {roles && (
        <ul className="pipeline">
          {roles.map(({ role, members, waiting_messages: waiting }) => (
            <li key={role} className={members === 0 ? "bad" : ""}>
              <strong>{role}</strong> <span className="none">{TASKS[role] ?? ""}</span>
              <span>
                {members === 0 ? "none running" : `${count(members)} running`}, {waiting === 0 ? "nothing waits" : `${plural(waiting, "message waits", "messages wait")}`}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function StorageCard({ answer }: { answer: OverviewAnswer }): ReactNode {
  const { storage } = answer;
  if (!storage) {
    return (
      <section className="card half">
        <h2>Storage</h2>
        <p className="none">Shown to callers of all tenants.</p>
      </section>
    );
  }
  const { disk, indices } = storage;
  const used = disk ? disk.total_bytes - disk.free_bytes : 0;
  return (
    <section className="card half">
      <h2>Storage</h2>
      {disk && (
        <p className="disk">
          <progress max={disk.total_bytes} value={used} aria-label="Disk used" />
          {bytes(used)} of {bytes(disk.total_bytes)} used ({percent(used, disk.total_bytes)}), {bytes(disk.free_bytes)} free
        </p>
      )}
      <div className="short-scroll" role="region" aria-label="Indices" tabIndex={0}>
        <table className="plain-table">
          <thead>
            <tr>
              <th scope="col">Index</th>
              <th scope="col" className="numeric">
                Documents
              </th>
              <th scope="col" className="numeric">
                Size
              </th>
            </tr>
          </thead>
          <tbody>
            {indices.map((index) => (
              <tr key={index.name}>
                <td>
                  <SafeText text={index.name} limit={80} />
                </td>
                <td className="numeric">{count(index.documents)}</td>
                <td className="numeric">{bytes(index.bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
