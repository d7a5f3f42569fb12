/** Documents as they come in, newest on top. */
import { useEffect, useRef, useState, type ReactNode } from "react";
import { parsed, tailUrl } from "../api/client";
import type { Hit } from "../api/types";
import { count, plural } from "../lib/format";
import { KIND_NAMES } from "../lib/kinds";
import { usePreferences } from "../lib/preferences";
import { combined, type Filter } from "../lib/query";
import type { SearchState } from "../lib/search-state";
import type { FieldIndex } from "../lib/session";
import { Button, Empty } from "./basics";
import { FlyOut } from "./flyout";
import { Results } from "./results";

const MOST_ROWS = 500;

type Connection = "connecting" | "open" | "broken";

interface Tail {
  hits: Hit[];
  seen: number;
  held: number;
  connection: Connection;
}

/** Keeps the newest rows; while paused they wait in the background and are only counted. */
function useTail(state: SearchState, paused: boolean): Tail {
  const [tail, setTail] = useState<Tail>({ hits: [], seen: 0, held: 0, connection: "connecting" });
  const waiting = useRef<Hit[]>([]);
  const isPaused = useRef(paused);
  isPaused.current = paused;
  const url = tailUrl(combined(state.query, state.filters), state.kind);
  useEffect(() => {
    const stream = new EventSource(url);
    const connection = (name: Connection) => () => setTail((before) => ({ ...before, connection: name }));
    stream.onopen = connection("open");
    stream.onerror = () => connection(stream.readyState === EventSource.CLOSED ? "broken" : "connecting")();
    stream.addEventListener("hit", (event) => {
      const hit = { kind: state.kind, ...(parsed(event.data as string) as Omit<Hit, "kind">) };
      waiting.current.push(hit);
    });
    const timer = window.setInterval(() => {
      if (waiting.current.length === 0) return;
      if (isPaused.current) return setTail((before) => ({ ...before, held: waiting.current.length }));
      const fresh = waiting.current.splice(0).reverse();
      setTail((before) => ({ ...before, hits: [...fresh, ...before.hits].slice(0, MOST_ROWS), seen: before.seen + fresh.length, held: 0 }));
    }, 250);
    return () => {
      window.clearInterval(timer);
      stream.close();
      waiting.current = [];
      setTail({ hits: [], seen: 0, held: 0, connection: "connecting" });
    };
  }, [url]);
  return tail;
}

const SAID: Record<Connection, string> = { connecting: "connecting…", open: "live", broken: "the connection ended" };

export function LiveTail(props: { state: SearchState; fields: FieldIndex; onStop: () => void; onFilter: (filter: Filter) => void }): ReactNode {
  const { state, fields, onStop, onFilter } = props;
  const { zone } = usePreferences();
  const [paused, setPaused] = useState(false);
  const [open, setOpen] = useState<Hit | null>(null);
  const tail = useTail(state, paused);
  const step = (by: number): void => {
    const at = tail.hits.findIndex((hit) => hit.id === open?.id);
    setOpen(tail.hits[Math.min(tail.hits.length - 1, Math.max(0, at + by))] ?? null);
  };
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
        <span className="spacer" />
        <Button icon={paused ? "play" : "pause"} pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Go on" : "Pause"}
        </Button>
        <Button icon="close" onClick={onStop}>
          Stop
        </Button>
      </div>
      <section className="card flush">
        {tail.hits.length === 0 ? (
          <Empty title={tail.connection === "broken" ? "The tail ended." : "Waiting for events that match."}>
            <p>{tail.connection === "broken" ? "Stop it, then start it again." : "Only what comes in from now on is shown here."}</p>
          </Empty>
        ) : (
          <Results hits={tail.hits} columns={state.columns} fields={fields} zone={zone} sort="" onSort={null} selected={open?.id ?? null} onOpen={setOpen} stale={false} label={`Live ${KIND_NAMES[state.kind]}`} />
        )}
      </section>
      {open && <FlyOut id={open.id} hit={open} zone={zone} fields={fields} columns={state.columns} onFilter={onFilter} onColumns={null} onClose={() => setOpen(null)} onMove={step} />}
    </div>
  );
}
