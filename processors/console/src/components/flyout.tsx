/** Everything about one event, beside the table it was opened from. */
import { useEffect, useRef, useState, type ReactNode } from "react";
import { get, path, post, type ApiError } from "../api/client";
import type { AroundAnswer, EventAnswer, Hit, Json, RevealAnswer, Source } from "../api/types";
import { flatten, textAt, valueAt } from "../lib/documents";
import { count } from "../lib/format";
import { useAct, useRequest } from "../lib/hooks";
import { shown } from "../lib/hostile";
import { filterValue, type Filter } from "../lib/query";
import { isFilterable, may, useSession, type FieldIndex } from "../lib/session";
import type { Zone } from "../lib/time";
import { Button, Dialog, Empty, Failure, Link, Loading, SafeText } from "./basics";
import { JsonView } from "./json-view";
import { Tabs } from "./tabs";
import { FieldName, MASK, Value } from "./value";

interface Choosing {
  fields: FieldIndex;
  columns: string[];
  onFilter: ((filter: Filter) => void) | null;
  onColumns: ((columns: string[]) => void) | null;
}

export function FlyOut(props: { id: string; hit: Hit | null; zone: Zone; onClose: () => void; onMove: (step: number) => void } & Choosing): ReactNode {
  const { id, hit, zone, onClose, onMove } = props;
  const element = useRef<HTMLElement>(null);
  useEffect(() => {
    if (window.matchMedia("(max-width: 900px)").matches) element.current?.focus();
  }, []);
  return (
    <aside className="flyout" aria-label="Details of the event" ref={element} tabIndex={-1}>
      <header className="flyout-head">
        <h2>
          <EventTitle source={hit?.source ?? null} id={id} zone={zone} />
        </h2>
        <Button kind="quiet" icon="back" label="Previous event (k)" onClick={() => onMove(-1)} />
        <Button kind="quiet" icon="next" label="Next event (j)" onClick={() => onMove(1)} />
        <Button kind="quiet" icon="close" label="Close details (Esc)" onClick={onClose} />
      </header>
      <EventView key={id} {...props} />
    </aside>
  );
}

function EventTitle({ source, id, zone }: { source: Source | null; id: string; zone: Zone }): ReactNode {
  if (!source) return <SafeText text={id} limit={60} />;
  return (
    <>
      <Value field="@timestamp" value={valueAt(source, "@timestamp")} zone={zone} />{" "}
      <Value field="event.outcome" value={valueAt(source, "event.outcome")} zone={zone} />
    </>
  );
}

/** The tabs; used by the fly-out and by the page of one event. */
export function EventView(props: { id: string; hit: Hit | null; zone: Zone } & Choosing): ReactNode {
  const { id, hit, zone } = props;
  const answer = useRequest(id, (signal) => get<EventAnswer>(path`/events/${id}`, signal));
  const documents = answer.data?.documents ?? (hit ? [hit] : []);
  const main = documents.find((document) => document.id === id) ?? documents[0];
  if (answer.error && !main) return <Failure error={answer.error} />;
  if (!main) return answer.loading ? <Loading what="the event" /> : <Empty title="There is no event with this id that you may see." />;
  return (
    <>
      <EventBar id={id} source={main.source} />
      <Tabs
        tabs={[
          { name: "Fields", content: () => <Fields {...props} source={main.source} /> },
          { name: "JSON", content: () => <Documents documents={documents} /> },
          { name: "Timeline", content: () => <Timeline answer={answer.data} error={answer.error} zone={zone} /> },
          { name: "Evidence", content: () => <EvidenceView answer={answer.data} error={answer.error} zone={zone} /> },
          { name: "Around", content: () => <Around id={id} source={main.source} zone={zone} /> },
        ]}
      />
    </>
  );
}

function EventBar({ id, source }: { id: string; source: Source }): ReactNode {
  const session = useSession();
  const [reveals, setReveals] = useState(false);
  const layers = (["redacted", "full"] as const).filter((layer) => may(session, `reveal_${layer}`));
  const hasContent = ["gen_ai.input.messages", "gatebook.sealed.redacted", "gatebook.sealed.full"].some((name) => textAt(source, name));
  return (
    <div className="event-bar">
      <Link to={`/event/${encodeURIComponent(id)}`} className="event-id">
        <SafeText text={id} limit={48} />
      </Link>
      {hasContent && layers.length > 0 && (
        <Button icon="lock" onClick={() => setReveals(true)}>
          Reveal content
        </Button>
      )}
      {reveals && <Reveal id={id} layers={layers} onClose={() => setReveals(false)} />}
    </div>
  );
}

function Reveal({ id, layers, onClose }: { id: string; layers: ("redacted" | "full")[]; onClose: () => void }): ReactNode {
  const [layer, setLayer] = useState<string>(layers[0] ?? "redacted");
  const [reason, setReason] = useState("");
  const [content, setContent] = useState<RevealAnswer | null>(null);
  const reveal = useAct(async () => {
    setContent(await post<RevealAnswer>(path`/events/${id}/reveal`, { layer, reason: reason.trim() }));
  });
  return (
    <Dialog title="Reveal content" onClose={onClose}>
      <p>Who looks at content, when and why, is recorded before anything is shown.</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          reveal.run();
        }}
      >
        <fieldset className="choices">
          <legend>Layer</legend>
          {layers.map((name) => (
            <label key={name}>
              <input type="radio" name="layer" checked={layer === name} onChange={() => setLayer(name)} /> {name}
            </label>
          ))}
        </fieldset>
        <label className="stacked">
          Reason
          <textarea required minLength={3} maxLength={500} rows={2} value={reason} onChange={(event) => setReason(event.target.value)} />
        </label>
        <button type="submit" className="button primary" disabled={reveal.busy || reason.trim().length < 3}>
          {reveal.busy ? "Opening…" : "Record and reveal"}
        </button>
      </form>
      {reveal.error && <Failure error={reveal.error} />}
      {content && (
        <div className="revealed" role="status">
          {Object.entries(content.layers).map(([name, told]) => (
            <section key={name}>
              <h3 className="small-title">
                {name}: {LAYER_STATES[textAt(told, "state")] ?? textAt(told, "state")}
              </h3>
              {told["content"] != null && <JsonView value={told["content"]} />}
            </section>
          ))}
        </div>
      )}
    </Dialog>
  );
}

const LAYER_STATES: Record<string, string> = {
  opened: "opened",
  absent: "was never kept",
  erased: "was erased",
  does_not_open: "cannot be opened with the keys at hand",
};

function Fields(props: { source: Source; zone: Zone } & Choosing): ReactNode {
  const { source, zone } = props;
  return (
    <table className="fields">
      <caption className="hidden">Fields of the event</caption>
      <tbody>
        {flatten(source).map(([name, value]) => (
          <tr key={name}>
            <th scope="row">
              <FieldName name={name} />
            </th>
            <td>
              <FieldValue field={name} value={value} zone={zone} />
              <FieldActs {...props} name={name} value={value} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const LONG = 300;

function FieldValue({ field, value, zone }: { field: string; value: Json; zone: Zone }): ReactNode {
  const [whole, setWhole] = useState(false);
  const isLong = typeof value === "string" && value.length > LONG;
  return (
    <span className="field-value">
      <Value field={field} value={value} zone={zone} exact {...(whole || !isLong ? {} : { limit: LONG })} />
      {isLong && (
        <button type="button" className="more" onClick={() => setWhole(!whole)}>
          {whole ? "less" : `all ${count(value.length)} characters`}
        </button>
      )}
    </span>
  );
}

function FieldActs(props: { name: string; value: Json } & Choosing): ReactNode {
  const { name, value, fields, columns, onFilter, onColumns } = props;
  const single = Array.isArray(value) ? value[0] : value;
  const canFilter = onFilter && single !== undefined && value !== MASK && isFilterable(fields, name);
  const label = shown(String(single), 40);
  return (
    <span className="field-acts">
      {canFilter && (
        <>
          <Button kind="quiet" icon="plus" label={`Only ${name}: ${label}`} onClick={() => onFilter({ field: name, value: filterValue(single), exclude: false })} />
          <Button kind="quiet" icon="minus" label={`Without ${name}: ${label}`} onClick={() => onFilter({ field: name, value: filterValue(single), exclude: true })} />
        </>
      )}
      {onColumns && fields.has(name) && (
        <Button
          kind="quiet"
          icon="columns"
          pressed={columns.includes(name)}
          label={`Column ${name}`}
          onClick={() => onColumns(columns.includes(name) ? columns.filter((column) => column !== name) : [...columns, name])}
        />
      )}
    </span>
  );
}

function Documents({ documents }: { documents: Hit[] }): ReactNode {
  return (
    <>
      {documents.map((document) => (
        <section key={`${document.index}/${document.id}`}>
          <h3 className="small-title">
            <SafeText text={document.index} />
          </h3>
          <JsonView value={document.source} />
        </section>
      ))}
    </>
  );
}

function Timeline({ answer, error, zone }: { answer: EventAnswer | null; error: ApiError | null; zone: Zone }): ReactNode {
  if (error) return <Failure error={error} />;
  if (!answer) return <Loading what="the timeline" />;
  if (answer.timeline.length === 0) return <Empty title="Nothing is known of how this came about." />;
  const start = Date.parse(answer.timeline[0]?.at ?? "");
  return (
    <ol className="timeline">
      {answer.timeline.map((step, at) => (
        <li key={at}>
          <Value field="at" value={step.at} zone={zone} />
          <span className="since">+{count(Math.max(0, Date.parse(step.at) - start))} ms</span>
          <strong>
            <SafeText text={step.name.replaceAll("_", " ")} limit={80} />
          </strong>
          {step.detail && (
            <span className="detail">
              <SafeText text={step.detail} limit={300} />
            </span>
          )}
        </li>
      ))}
    </ol>
  );
}

function EvidenceView({ answer, error, zone }: { answer: EventAnswer | null; error: ApiError | null; zone: Zone }): ReactNode {
  if (error) return <Failure error={error} />;
  if (!answer) return <Loading what="the evidence" />;
  const { evidence, cited_by, related } = answer;
  const verdict =
    evidence.digest_holds === null ? "no digest to check" : evidence.digest_holds ? "is what was written" : "is NOT what was written";
  return (
    <>
      <p className={`integrity ${evidence.digest_holds === false ? "broken" : ""}`}>
        The stored document <strong>{verdict}</strong>. That no other event is missing is told by its producer's sequence alone.
      </p>
      <dl className="pairs">
        {Object.entries(evidence).map(([name, value]) => (
          <div key={name}>
            <dt>{name.replaceAll("_", " ")}</dt>
            <dd>
              {typeof value === "boolean" ? String(value) : typeof value === "number" ? value : <Value field={name} value={value} zone={zone} limit={100} />}
            </dd>
          </div>
        ))}
      </dl>
      <h3 className="small-title">Findings that cite it</h3>
      {cited_by.length === 0 && <p className="none">None.</p>}
      <ul className="listed">
        {cited_by.map((finding) => (
          <li key={finding.id}>
            <Link to={`/finding/${encodeURIComponent(textAt(finding.source, "gatebook.incident") || finding.id)}`}>
              <SafeText text={textAt(finding.source, "rule.name") || finding.id} limit={100} />
            </Link>{" "}
            <Value field="@timestamp" value={valueAt(finding.source, "@timestamp")} zone={zone} />
          </li>
        ))}
      </ul>
      <h3 className="small-title">Accesses with the same value</h3>
      {related.length === 0 && <p className="none">None.</p>}
      <ul className="listed">
        {related.map((same) => (
          <li key={same.by}>
            <Link to={`/search?${new URLSearchParams({ f: `+${same.by}=${same.value}`, own: "1" }).toString()}`}>
              {same.by}: <SafeText text={same.value} limit={80} />
            </Link>
            <span className="number">{count(same.count)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

const AROUND_BY = ["service.name", "user.id", "gatebook.principal", "trace.id", "gen_ai.conversation.id", "session.id", "source.ip"];

function Around({ id, source, zone }: { id: string; source: Source; zone: Zone }): ReactNode {
  const possible = AROUND_BY.filter((name) => !["", MASK].includes(textAt(source, name)));
  const [by, setBy] = useState(possible[0] ?? "");
  const asked = `/events/${encodeURIComponent(id)}/around?before=10&after=10${by ? `&by=${by}` : ""}`;
  const answer = useRequest(asked, (signal) => get<AroundAnswer>(asked, signal));
  const row = (hit: Hit): ReactNode => (
    <li key={hit.id} className={hit.id === id ? "here" : ""} aria-current={hit.id === id}>
      <Link to={`/event/${encodeURIComponent(hit.id)}`}>
        <Value field="@timestamp" value={valueAt(hit.source, "@timestamp")} zone={zone} />
      </Link>
      <Value field="event.outcome" value={valueAt(hit.source, "event.outcome")} zone={zone} />
      <Value field="event.action" value={valueAt(hit.source, "event.action")} zone={zone} limit={40} />
      <Value field="gen_ai.request.model" value={valueAt(hit.source, "gen_ai.request.model")} zone={zone} limit={40} />
    </li>
  );
  return (
    <>
      <label className="inline-form">
        Same
        <select value={by} onChange={(event) => setBy(event.target.value)}>
          {possible.map((name) => (
            <option key={name}>{name}</option>
          ))}
          <option value="">anything</option>
        </select>
      </label>
      {answer.error && <Failure error={answer.error} />}
      {answer.loading && !answer.data && <Loading what="what came before and after" />}
      {answer.data && (
        <ol className={`around ${answer.loading ? "stale" : ""}`}>{[...answer.data.before, answer.data.event, ...answer.data.after].map(row)}</ol>
      )}
    </>
  );
}

