import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { ApiError as Problem, get, post, serverNow, type ApiError } from "../api/client";
import { KINDS, type FacetsAnswer, type Field, type HistogramAnswer, type Hit, type Kind, type QueryCheck, type SearchAnswer } from "../api/types";
import { Button, Empty, Failure, Icon, LagBadge, Link, Loading, Popover } from "../components/basics";
import { ExportDialog } from "../components/export-dialog";
import { Chips, Facets, FieldList } from "../components/facets";
import { FlyOut } from "../components/flyout";
import { Histogram } from "../components/histogram";
import { OwnSwitch } from "../components/own-switch";
import { Results } from "../components/results";
import { SavedSearches } from "../components/saved-searches";
import { LiveTail } from "../components/tail";
import { TimePicker, ZoomOut } from "../components/time-picker";
import { count, plural } from "../lib/format";
import { useKeys, useRequest } from "../lib/hooks";
import { COLUMNS, DEFAULT_SORT, FACETS, KIND_NAMES, MAX_FACETS, SPLIT } from "../lib/kinds";
import { setPreferences, usePreferences } from "../lib/preferences";
import { namesOwn, withFilter, type Filter } from "../lib/query";
import { address, allFilters, asked, columnsOf, fromLocation, leavesOwnOut, show, type SearchState } from "../lib/search-state";
import { useLocation } from "../lib/router";
import { may, useSession, type FieldIndex } from "../lib/session";
import { absolute, formatInstant, isRelative, type Range, type Zone } from "../lib/time";

const PAGE = 100;
const BUCKETS = 80;
const NO_FIELDS: FieldIndex = new Map();

export function SearchPage(): ReactNode {
  const location = useLocation();
  const state = useMemo(() => fromLocation(location), [location]);
  const [now, setNow] = useState(() => serverNow());
  const [live, setLive] = useState(false);
  const change = (changed: Partial<SearchState>): void => {
    // Other columns are of the same answer: nothing is asked anew.
    const moment = Object.keys(changed).join() === "columns" ? now : serverNow();
    setNow(moment);
    show({ ...state, ...changed }, moment);
  };
  const refresh = (): void => {
    const moment = serverNow();
    setNow(moment);
    show(state, moment, { replace: true });
  };
  // The address says what is shown from the first moment on, so that it can be copied.
  useEffect(() => {
    if (isRelative(state.range)) show(state, now, { replace: true });
  }, []);
  useEffect(() => {
    if (!location.search.includes("from=")) show(state, now, { replace: true });
  }, [location.search]);
  const fields = useFields(state.kind);
  return (
    <div className="search-page">
      <h1 className="hidden">Search</h1>
      <SearchBar key={state.query} state={state} onChange={change} onRefresh={refresh} live={live} onLive={setLive} />
      <Chips filters={state.filters} onChange={(filters) => change({ filters })} />
      {live ? (
        <LiveTail state={state} fields={fields} onStop={() => setLive(false)} onFilter={(filter) => change({ filters: withFilter(state.filters, filter) })} onOwn={(own) => change(ownChange(state, own))} />
      ) : (
        <Found state={state} fields={fields} now={now} onChange={change} onRefresh={refresh} />
      )}
    </div>
  );
}

function useFields(kind: Kind): FieldIndex {
  const answer = useRequest(kind, (signal) => get<{ fields: Field[] }>(`/fields?kind=${kind}`, signal));
  return useMemo(
    () => (answer.data ? new Map(answer.data.fields.map((field) => [field.name, field])) : NO_FIELDS),
    [answer.data],
  );
}

/** The change that shows Gatebook's own acts or hides them: chips that name them give way. */
function ownChange(state: SearchState, own: boolean): Partial<SearchState> {
  return { own, filters: state.filters.filter((filter) => !namesOwn("", [filter])) };
}

/** A query to begin with, of fields that every caller may ask for. */
const EXAMPLE = "event.outcome:failure and service.name:support   or words   ( / )";

function SearchBar(props: {
  state: SearchState;
  onChange: (changed: Partial<SearchState>) => void;
  onRefresh: () => void;
  live: boolean;
  onLive: (live: boolean) => void;
}): ReactNode {
  const { state, onChange, onRefresh, live, onLive } = props;
  const { zone, shortcuts } = usePreferences();
  const [text, setText] = useState(state.query);
  const input = useRef<HTMLInputElement>(null);
  const submit = (event: React.FormEvent): void => {
    event.preventDefault();
    if (text === state.query) onRefresh();
    else onChange({ query: text });
  };
  useKeys(
    {
      "/": (event) => {
        event.preventDefault();
        input.current?.focus();
        input.current?.select();
      },
    },
    shortcuts,
  );
  return (
    <div className="search-bar">
      <form role="search" className="query-form" onSubmit={submit}>
        <Icon name="search" />
        <input
          ref={input}
          id="query"
          className="query"
          aria-label="Query"
          placeholder={EXAMPLE}
          spellCheck={false}
          autoCapitalize="off"
          autoComplete="off"
          maxLength={8192}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
        />
        <select
          aria-label="Kind of document"
          value={state.kind}
          onChange={(event) => {
            const kind = event.target.value as Kind;
            onChange({ kind, columns: COLUMNS[kind], sort: DEFAULT_SORT, filters: [] });
          }}
        >
          {KINDS.map((kind) => (
            <option key={kind} value={kind}>
              {KIND_NAMES[kind]}
            </option>
          ))}
        </select>
        <button type="submit" className="button primary">
          Search
        </button>
      </form>
      <TimePicker key={`${JSON.stringify(state.range)}${zone}`} range={state.range} zone={zone} onChange={(range) => onChange({ range })} />
      <ZoomOut range={state.range} onChange={(range) => onChange({ range })} />
      <Button kind="quiet" icon="refresh" label="Search again" onClick={onRefresh} />
      <Button icon={live ? "pause" : "play"} pressed={live} onClick={() => onLive(!live)}>
        Live
      </Button>
    </div>
  );
}

/** Text and chips are checked apart: the text alone must be a query, so that no bracket in it
 * reaches beyond, and an error has its position in what was typed. */
async function checked(state: SearchState, signal: AbortSignal): Promise<void> {
  if (allFilters(state).length === 0 || state.query.trim() === "") return;
  const answer = await post<QueryCheck>("/query/check", { query: state.query, kind: state.kind }, signal);
  if (answer.ok || !answer.error) return;
  throw new Problem(400, "query", answer.error.message, answer.error.position, answer.error.next_step);
}

/** A position in what was asked as one in what was typed; none where a chip is at fault. */
function inText(error: Problem, state: SearchState): Problem {
  if (error.position === null || allFilters(state).length === 0) return error;
  const at = error.position - 1; // behind the bracket around the text
  const length = Array.from(state.query).length;
  const position = state.query.trim() !== "" && at >= 0 && at <= length ? at : null;
  return new Problem(error.status, error.type, error.message, position, error.nextStep);
}

function Found(props: {
  state: SearchState;
  fields: FieldIndex;
  now: Date;
  onChange: (changed: Partial<SearchState>) => void;
  onRefresh: () => void;
}): ReactNode {
  const { state, fields, now, onChange, onRefresh } = props;
  const { zone, facetsOpen } = usePreferences();
  const question = asked(state, now);
  const key = JSON.stringify([question, now.getTime()]);
  const facetNames = FACETS[state.kind].filter((name) => fields.get(name) && !fields.get(name)?.masked).slice(0, MAX_FACETS);
  const searched = useRequest(`${key}${state.sort}`, async (signal) => {
    await checked(state, signal);
    return post<SearchAnswer>("/search", { ...question, size: PAGE, sort: state.sort }, signal).catch((error: unknown) => {
      throw error instanceof Problem ? inText(error, state) : error;
    });
  });
  const histogram = useRequest(key, (signal) => {
    const split_by = SPLIT[state.kind];
    return post<HistogramAnswer>("/histogram", { ...question, buckets: BUCKETS, ...(split_by ? { split_by } : {}) }, signal);
  });
  const facets = useRequest(facetNames.length ? `${key}${facetNames.join()}` : null, (signal) =>
    post<FacetsAnswer>("/facets", { ...question, fields: facetNames, size: 20 }, signal),
  );
  const filter = (chosen: Filter): void => onChange({ filters: withFilter(state.filters, chosen) });
  if (searched.error) return <SearchFailed error={searched.error} state={state} fields={fields} onChange={onChange} onRetry={onRefresh} />;
  return (
    <div className={facetsOpen ? "search-body" : "search-body wide"}>
      <aside className="side" aria-label="Facets and fields">
        {facetsOpen && (
          <>
            <Facets answer={facets.data} names={facetNames} error={facets.error} loading={facets.loading} onFilter={filter} />
            <details className="facet">
              <summary>
                <span className="facet-name">All fields</span>
                <span className="facet-distinct">{count(fields.size)}</span>
              </summary>
              <FieldList fields={fields} columns={columnsOf(state, fields)} onColumns={(columns) => onChange({ columns })} />
            </details>
          </>
        )}
      </aside>
      <div className="main-column">
        <section className="card" aria-label="Histogram">
          {histogram.error && <Failure error={histogram.error} />}
          {!histogram.data && !histogram.error && <div className="histogram-space" />}
          {histogram.data && (
            <Histogram answer={histogram.data} zone={zone} loading={histogram.loading} onZoom={(from, to) => onChange({ range: { from, to } })} />
          )}
        </section>
        <Pages key={key + state.sort} {...props} filter={filter} first={searched.data} loading={searched.loading} histogram={histogram.data} zone={zone} />
      </div>
    </div>
  );
}

function SearchFailed(props: {
  error: ApiError;
  state: SearchState;
  fields: FieldIndex;
  onChange: (changed: Partial<SearchState>) => void;
  onRetry: () => void;
}): ReactNode {
  const { error, state, fields, onChange, onRetry } = props;
  // The server names the command that lists fields; here they are listed at once.
  const asksForFields = error.nextStep.includes("--list-fields");
  const told = asksForFields ? new Problem(error.status, error.type, error.message, error.position, "All fields are listed below.") : error;
  return (
    <div className="failed-search">
      <Failure error={told} query={state.query} />
      {asksForFields && (
        <details className="card facet" open>
          <summary>
            <span className="facet-name">All fields</span>
            <span className="facet-distinct">{count(fields.size)}</span>
          </summary>
          <FieldList fields={fields} columns={columnsOf(state, fields)} onColumns={(columns) => onChange({ columns })} />
        </details>
      )}
      <Button icon="refresh" onClick={onRetry}>
        Try again
      </Button>
    </div>
  );
}

/** The hits so far, and what is told beside them. */
function Pages(props: {
  state: SearchState;
  fields: FieldIndex;
  now: Date;
  onChange: (changed: Partial<SearchState>) => void;
  filter: (filter: Filter) => void;
  first: SearchAnswer | null;
  histogram: HistogramAnswer | null;
  loading: boolean;
  zone: Zone;
}): ReactNode {
  const { state, fields, now, onChange, filter, first, histogram, loading, zone } = props;
  const [more, setMore] = useState<SearchAnswer[]>([]);
  const [failed, setFailed] = useState<ApiError | null>(null);
  const [turning, setTurning] = useState(false);
  const [open, setOpen] = useState<string | null>(null);
  const hits = useMemo(() => [first, ...more].flatMap((page) => page?.hits ?? []), [first, more]);
  const cursor = (more.at(-1) ?? first)?.cursor ?? null;
  const question = asked(state, now);
  const opened = hits.find((hit) => hit.id === open) ?? null;

  const turn = (): void => {
    setTurning(true);
    setFailed(null);
    post<SearchAnswer>("/search", { ...question, size: PAGE, sort: state.sort, cursor })
      .then(
        (page) => setMore((before) => [...before, page]),
        (error: unknown) => setFailed(error instanceof Problem ? error : new Problem(0, "internal", String(error))),
      )
      .finally(() => setTurning(false));
  };
  useRowKeys(hits, open, setOpen);
  if (!first) return loading ? <Loading what="events" /> : null;
  return (
    <>
      <Toolbar {...props} shown={hits.length} answer={first} histogram={histogram} />
      <section className="card flush">
        {hits.length === 0 ? (
          <NothingFound state={state} onChange={onChange} now={now} />
        ) : (
          <Results
            hits={hits}
            columns={columnsOf(state, fields)}
            fields={fields}
            zone={zone}
            sort={state.sort}
            onSort={(sort) => onChange({ sort })}
            selected={open}
            onOpen={(hit) => setOpen(hit.id)}
            stale={loading}
            label={KIND_NAMES[state.kind]}
          />
        )}
        {failed && <Failure error={failed} />}
        {cursor && (
          <div className="more-rows">
            <Button onClick={turn} disabled={turning}>
              {turning ? "Loading…" : `Show ${PAGE} more`}
            </Button>
            <span>
              {count(hits.length)} of {count(first.total)}
            </span>
          </div>
        )}
      </section>
      {open && (
        <FlyOut
          id={open}
          hit={opened}
          zone={zone}
          fields={fields}
          columns={columnsOf(state, fields)}
          onFilter={filter}
          onColumns={(columns) => onChange({ columns })}
          onClose={() => {
            setOpen(null);
            focusRow(open);
          }}
          onMove={(step) => step && setOpen(neighbour(hits, open, step))}
        />
      )}
    </>
  );
}

function neighbour(hits: Hit[], id: string | null, step: number): string | null {
  const at = hits.findIndex((hit) => hit.id === id);
  const next = at < 0 ? 0 : Math.min(hits.length - 1, Math.max(0, at + step));
  return hits[next]?.id ?? null;
}

function focusRow(id: string | null): void {
  if (id) document.querySelector<HTMLElement>(`[data-row="${CSS.escape(id)}"]`)?.focus();
}

/** j and k move the focus from row to row, and the open details with it; Esc closes them. */
export function useRowKeys(hits: Hit[], open: string | null, setOpen: (id: string | null) => void): void {
  const { shortcuts } = usePreferences();
  const move = (step: number): void => {
    const focused = (document.activeElement as HTMLElement | null)?.dataset["row"] ?? null;
    const next = neighbour(hits, focused ?? open, step);
    focusRow(next);
    if (open) setOpen(next);
  };
  useKeys(
    {
      j: () => move(1),
      k: () => move(-1),
      Escape: () => {
        if (!open) return;
        setOpen(null);
        focusRow(open);
      },
    },
    shortcuts,
  );
}

/** What a query that found nothing may have meant. */
function hints(state: SearchState): string[] {
  if (state.kind !== "access") return [];
  const values = [state.query, ...state.filters.map((filter) => `${filter.field}:${filter.value ?? ""}`)].join(" ");
  const found: string[] = [];
  if (/[^\s"@:]+@[^\s"@]+\.\w/.test(values)) {
    found.push(
      "A mail address is stored as a pseudonym, also as a user id. “gatebook subject status ADDRESS --tenant TENANT” prints the tag of the person; gatebook.subject:TAG finds the events.",
    );
  }
  if (/user\.id:\s*"?(key|ip):/.test(values)) {
    found.push("A caller that is known by a key or an address alone has no user.id: ask for it by gatebook.principal.");
  }
  return found;
}

function NothingFound({ state, onChange, now }: { state: SearchState; onChange: (changed: Partial<SearchState>) => void; now: Date }): ReactNode {
  const { zone } = usePreferences();
  const { from, to } = absolute(state.range, now);
  const week: Range = { last: "7d" };
  return (
    <Empty title="Nothing matches.">
      <p>
        Looked at {formatInstant(from, zone, 0)} up to {formatInstant(to, zone, 0)}.
      </p>
      {hints(state).map((hint) => (
        <p key={hint} className="hint">
          {hint}
        </p>
      ))}
      <div className="button-row">
        <Button icon="clock" onClick={() => onChange({ range: week })}>
          Look at the last 7 days
        </Button>
        {leavesOwnOut(state) && <Button onClick={() => onChange({ own: true })}>Show Gatebook's own, too</Button>}
        {(state.filters.length > 0 || state.query) && (
          <Button icon="close" onClick={() => onChange({ filters: [], query: "" })}>
            Drop query and filters
          </Button>
        )}
      </div>
    </Empty>
  );
}

function Toolbar(props: {
  state: SearchState;
  fields: FieldIndex;
  now: Date;
  onChange: (changed: Partial<SearchState>) => void;
  answer: SearchAnswer;
  histogram: HistogramAnswer | null;
  shown: number;
}): ReactNode {
  const { state, fields, now, onChange, answer, histogram, shown } = props;
  const session = useSession();
  const { facetsOpen } = usePreferences();
  const [columnsOpen, setColumnsOpen] = useState(false);
  const [exports, setExports] = useState(false);
  return (
    <div className="toolbar">
      <Button kind="quiet" icon="filter" pressed={facetsOpen} label={facetsOpen ? "Hide facets" : "Show facets"} onClick={() => setPreferences({ facetsOpen: !facetsOpen })} />
      <p className="count" role="status">
        <strong>{count(shown)}</strong> of <strong>{plural(answer.total, "event")}</strong>
      </p>
      <OwnSwitch state={state} onChange={(own) => onChange(ownChange(state, own))} />
      <span className="took">in {Math.round(answer.took_ms)} ms</span>
      <Badges answer={answer} histogram={histogram} follows={isRelative(state.range)} />
      <div className="toolbar-acts">
        <Popover open={columnsOpen} onOpen={setColumnsOpen} icon="columns" text="Columns" align="right">
          <FieldList fields={fields} columns={columnsOf(state, fields)} onColumns={(columns) => onChange({ columns })} />
        </Popover>
        <SavedSearches state={state} onOpen={onChange} />
        <CopyLink state={state} now={now} />
        {may(session, "export") && (
          <Button icon="download" onClick={() => setExports(true)}>
            Export
          </Button>
        )}
      </div>
      {exports && <ExportDialog question={asked(state, now)} columns={columnsOf(state, fields)} total={answer.total} onClose={() => setExports(false)} />}
    </div>
  );
}

function Badges({ answer, histogram, follows }: { answer: SearchAnswer; histogram: HistogramAnswer | null; follows: boolean }): ReactNode {
  const thinned = answer.detail.thinned.some((range) => range.keep_one_in !== null);
  const gone = !answer.detail.complete && answer.detail.thinned.some((range) => range.keep_one_in === null);
  const seconds = answer.lag?.seconds;
  return (
    <>
      {follows && seconds !== undefined && <LagBadge seconds={seconds} />}
      {histogram && histogram.source !== "details" && (
        <span className="badge note" title="The details of this range are gone or too many: hourly summaries were counted.">
          answered from summaries{histogram.source === "both" ? " and details" : ""}
        </span>
      )}
      {thinned && (
        <span className="badge note" title="A policy kept only some details of this range; summaries counted them all.">
          thinned
        </span>
      )}
      {gone && (
        <span className="badge note" title="Retention removed details of this range; summaries counted them.">
          details gone
        </span>
      )}
    </>
  );
}

function CopyLink({ state, now }: { state: SearchState; now: Date }): ReactNode {
  const [done, setDone] = useState("");
  const link = `${window.location.origin}${address(state, now)}`;
  const copy = (): void => {
    navigator.clipboard.writeText(link).then(
      () => setDone("Copied"),
      () => setDone("Copy it from the address bar"),
    );
  };
  return (
    <Button icon="link" onClick={copy}>
      <span role="status">{done || "Copy link"}</span>
    </Button>
  );
}

/** A finding's or an event's way back to the search. */
export function SearchLink({ query, from, to, text }: { query: string; from: string; to: string; text: string }): ReactNode {
  const params = new URLSearchParams({ q: query, from, to });
  return <Link to={`/search?${params.toString()}`}>{text}</Link>;
}

