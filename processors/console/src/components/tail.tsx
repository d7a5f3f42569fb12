/** Documents as they come in, newest on top. */
import { useEffect, useRef, useState, type ReactNode } from "react";
import { ApiError, parsed, serverNow, tailRefusal, tailUrl } from "../api/client";
import type { Hit, Lag, Skipped } from "../api/types";
import { count, plural } from "../lib/format";
import { KIND_NAMES } from "../lib/kinds";
import { usePreferences } from "../lib/preferences";
import type { Filter } from "../lib/query";
import { columnsOf, questionOf, skippedAddress, type SearchState } from "../lib/search-state";
import type { FieldIndex } from "../lib/session";
import { formatInstant, isInstant, type Zone } from "../lib/time";
import { Button, Empty, Failure, LagBadge } from "./basics";
import { FlyOut } from "./flyout";
import { OwnSwitch } from "./own-switch";
import { Results } from "./results";

const MOST_ROWS = 500;
/** More than what a tail that connects again may repeat. */
const MOST_KNOWN = 20_000;
const AGAIN_SECONDS = 10;

type Connection = "connecting" | "open" | "broken";

type Row = Hit | Skipped;

interface Tail {
  rows: Row[];
  lag: Lag | null;
  seen: number;
  held: number;
  connection: Connection;
  /** Why there is no connection, while there is none. */
  problem: ApiError | null;
  again: boolean;
}

const NOTHING: Tail = { rows: [], lag: null, seen: 0, held: 0, connection: "connecting", problem: null, again: false };

/** Whether another try may go better: not where the query or the caller is at fault. */
function mayPass(problem: ApiError | null): boolean {
  return problem === null || problem.status === 0 || problem.status === 429 || problem.status >= 500;
}

function isHit(row: Row): row is Hit {
  return "id" in row;
}

function keyOf(row: Row): string {
  return isHit(row) ? row.id : `${row.from}/${row.to}`;
}

/** Whether it was not there before. Only the newest are remembered. */
function isNew(row: Row, known: Set<string>): boolean {
  const key = keyOf(row);
  if (known.has(key)) return false;
  known.add(key);
  for (const oldest of known) {
    if (known.size <= MOST_KNOWN) break;
    known.delete(oldest);
  }
  return true;
}

/** Keeps the newest rows; while paused they wait in the background and are only counted. */
function useTail(state: SearchState, paused: boolean): Tail & { retry: () => void } {
  const [tail, setTail] = useState<Tail>(NOTHING);
  const waiting = useRef<Row[]>([]);
  const isPaused = useRef(paused);
  isPaused.current = paused;
  const retry = useRef<() => void>(() => undefined);
  const query = questionOf(state);
  const url = tailUrl(query, state.kind);
  useEffect(() => {
    const asking = new AbortController();
    let stream: EventSource | null = null;
    let later = 0;
    let lastId = "";
    const known = new Set<string>();
    const change = (changed: Partial<Tail>): void => setTail((before) => ({ ...before, ...changed }));
    /** The browser tries again by itself, but not where the server refused; nor does it say why. */
    const refused = async (): Promise<void> => {
      const problem = await tailRefusal(query, state.kind, asking.signal);
      if (asking.signal.aborted) return;
      const again = mayPass(problem);
      change({ connection: "broken", problem: problem ?? new ApiError(0, "ended", "The connection ended."), again });
      if (again) later = window.setTimeout(connect, AGAIN_SECONDS * 1_000);
    };
    const connect = (): void => {
      window.clearTimeout(later);
      stream?.close();
      const opened = new EventSource(tailUrl(query, state.kind, lastId));
      stream = opened;
      change({ connection: "connecting" });
      opened.onopen = () => change({ connection: "open", problem: null });
      opened.onerror = () => {
        if (opened !== stream) return;
        if (opened.readyState === EventSource.CLOSED) void refused();
        else change({ connection: "connecting" });
      };
      /** An event of the stream. Connected again, a tail may repeat some. */
      const on = (name: string, take: (data: unknown) => void): void =>
        opened.addEventListener(name, (event) => {
          lastId = event.lastEventId;
          take(parsed(event.data as string));
        });
      const add = (row: Row): void => {
        if (isNew(row, known)) waiting.current.push(row);
      };
      on("hit", (data) => add({ kind: state.kind, ...(data as Omit<Hit, "kind">) }));
      on("skipped", (data) => {
        const range = data as Skipped;
        if (isInstant(range.from) && isInstant(range.to)) add(range);
      });
      on("lag", (data) => change({ lag: data as Lag }));
    };
    retry.current = connect;
    connect();
    const timer = window.setInterval(() => {
      if (waiting.current.length === 0) return;
      const came = waiting.current.filter(isHit).length;
      if (isPaused.current) return setTail((before) => ({ ...before, held: came }));
      const fresh = waiting.current.splice(0).reverse();
      setTail((before) => ({ ...before, rows: [...fresh, ...before.rows].slice(0, MOST_ROWS), seen: before.seen + came, held: 0 }));
    }, 250);
    return () => {
      window.clearInterval(timer);
      window.clearTimeout(later);
      asking.abort();
      stream?.close();
      waiting.current = [];
      setTail(NOTHING);
    };
  }, [url]);
  return { ...tail, retry: () => retry.current() };
}

const SAID: Record<Connection, string> = { connecting: "connecting…", open: "live", broken: "not connected" };

/** Where rows are missing, and where they are. The tail goes on in this window. */
function SkippedNote({ range, state, zone }: { range: Skipped; state: SearchState; zone: Zone }): ReactNode {
  return (
    <>
      Skipped what came in from {formatInstant(range.from, zone)} to {formatInstant(range.to, zone)}.{" "}
      <a href={skippedAddress(state, range, serverNow())} target="_blank" rel="noopener">
        Search for it in a new window
      </a>
    </>
  );
}

export function LiveTail(props: { state: SearchState; fields: FieldIndex; onStop: () => void; onFilter: (filter: Filter) => void; onOwn: (own: boolean) => void }): ReactNode {
  const { state, fields, onStop, onFilter, onOwn } = props;
  const { zone } = usePreferences();
  const [paused, setPaused] = useState(false);
  const [open, setOpen] = useState<Hit | null>(null);
  const tail = useTail(state, paused);
  const step = (by: number): void => {
    const hits = tail.rows.filter(isHit);
    const at = hits.findIndex((hit) => hit.id === open?.id);
    setOpen(hits[Math.min(hits.length - 1, Math.max(0, at + by))] ?? null);
  };
  const entries = tail.rows.map((row) => (isHit(row) ? row : { note: keyOf(row), text: <SkippedNote range={row} state={state} zone={zone} /> }));
  return (
    <div className="main-column">
      <div className="toolbar">
        <p className={`count live-${tail.connection}`}>
          <span className="live-dot" aria-hidden="true" />
          <span role="status">{paused ? "paused" : SAID[tail.connection]}</span>
          <span className="took">
            {plural(tail.seen, "event")} since it was opened{tail.held ? `, ${count(tail.held)} waiting` : ""}
          </span>
        </p>
        {tail.lag?.newest_ingested && <LagBadge seconds={tail.lag.seconds} />}
        <OwnSwitch state={state} onChange={onOwn} />
        <span className="spacer" />
        <Button icon={paused ? "play" : "pause"} pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Go on" : "Pause"}
        </Button>
        <Button icon="close" onClick={onStop}>
          Stop
        </Button>
      </div>
      {tail.problem && (
        <div className="tail-problem">
          <Failure error={tail.problem} />
          <p>{tail.again ? `It tries again every ${AGAIN_SECONDS} seconds; what comes in until then is shown then.` : "It does not try again by itself."}</p>
          <Button icon="refresh" onClick={tail.retry} disabled={tail.connection === "connecting"}>
            Try now
          </Button>
        </div>
      )}
      <section className="card flush">
        {entries.length === 0 ? (
          <Empty title={tail.problem ? "Not connected." : "Waiting for events that match."}>
            <p>Only what comes in {tail.problem ? "once it is connected" : "from now on"} is shown here.</p>
          </Empty>
        ) : (
          <Results hits={entries} columns={columnsOf(state, fields)} fields={fields} zone={zone} sort="" onSort={null} selected={open?.id ?? null} onOpen={setOpen} stale={false} label={`Live ${KIND_NAMES[state.kind]}`} />
        )}
      </section>
      {open && <FlyOut id={open.id} hit={open} zone={zone} fields={fields} columns={columnsOf(state, fields)} onFilter={onFilter} onColumns={null} onClose={() => setOpen(null)} onMove={step} />}
    </div>
  );
}
