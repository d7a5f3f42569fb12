/** Events over time. Drag, or use the keys, to choose a range of time. */
import { useMemo, useRef, useState, type ReactNode } from "react";
import type { HistogramAnswer } from "../api/types";
import { compact, count } from "../lib/format";
import { useWidth } from "../lib/hooks";
import { formatInstant, formatTick, roughly, type Zone } from "../lib/time";

const HEIGHT = 104;
const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const DRAG_PIXELS = 4;
/** In this order from the axis up, as in the Overview; other parts come last. */
const PART_ORDER = ["failure", "success", "unknown"];

interface Bar {
  from: number;
  to: number;
  count: number;
  parts: [string, number][];
}

interface Scale {
  x: (ms: number) => number;
  y: (value: number) => number;
  time: (x: number) => number;
  from: number;
  to: number;
}

function bars(answer: HistogramAnswer): Bar[] {
  return answer.buckets.map((bucket) => {
    const from = Date.parse(bucket.at);
    const parts = Object.entries(bucket.parts ?? {}).sort(([a], [b]) => rank(a) - rank(b));
    return { from, to: from + answer.interval_seconds * 1000, count: bucket.count, parts };
  });
}

function rank(part: string): number {
  const at = PART_ORDER.indexOf(part);
  return at < 0 ? PART_ORDER.length : at;
}

function partClass(part: string): string {
  return PART_ORDER.includes(part) ? `part-${part}` : "part-other";
}

function scaleOf(answer: HistogramAnswer, all: Bar[], width: number): Scale {
  const from = Date.parse(answer.from);
  const to = Math.max(from + 1, Date.parse(answer.to));
  const highest = Math.max(1, ...all.map((bar) => bar.count));
  const inner = Math.max(1, width - LEFT - RIGHT);
  const clamp = (ms: number): number => Math.min(to, Math.max(from, ms));
  return {
    x: (ms) => LEFT + ((clamp(ms) - from) / (to - from)) * inner,
    y: (value) => TOP + (1 - value / highest) * (HEIGHT - TOP - BOTTOM),
    time: (x) => clamp(from + ((x - LEFT) / inner) * (to - from)),
    from,
    to,
  };
}

/** Round instants for an axis of `width` pixels. */
export function ticks(from: number, to: number, width: number): number[] {
  const steps = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000];
  const most = Math.max(2, Math.floor(width / 110));
  const span = (to - from) / 1000;
  const step = (steps.find((seconds) => span / seconds <= most) ?? 31_536_000) * 1000;
  const found: number[] = [];
  for (let at = Math.ceil(from / step) * step; at < to; at += step) found.push(at);
  return found;
}

export function Histogram(props: {
  answer: HistogramAnswer;
  zone: Zone;
  onZoom: (from: string, to: string) => void;
  loading: boolean;
}): ReactNode {
  const { answer, zone, onZoom, loading } = props;
  const [element, width] = useWidth<HTMLDivElement>();
  const all = useMemo(() => bars(answer), [answer]);
  const scale = useMemo(() => scaleOf(answer, all, width), [answer, all, width]);
  const [cursor, setCursor] = useState<number | null>(null);
  const [brush, setBrush] = useState<{ anchor: number; at: number } | null>(null);
  const [anchorBar, setAnchorBar] = useState<number | null>(null);
  const pressed = useRef<number | null>(null);
  const intervalMs = answer.interval_seconds * 1000;

  const snap = (a: number, b: number): [number, number] => {
    const low = Math.max(scale.from, Math.floor(Math.min(a, b) / intervalMs) * intervalMs);
    const high = Math.min(scale.to, Math.ceil(Math.max(a, b) / intervalMs) * intervalMs);
    return [low, Math.max(high, low + 1)];
  };
  const zoom = (a: number, b: number): void => {
    const [from, to] = snap(a, b);
    setBrush(null);
    setAnchorBar(null);
    onZoom(new Date(from).toISOString(), new Date(to).toISOString());
  };
  const pointAt = (event: React.PointerEvent): number =>
    event.clientX - event.currentTarget.getBoundingClientRect().left;

  function onDown(event: React.PointerEvent): void {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    pressed.current = pointAt(event);
  }
  function onMove(event: React.PointerEvent): void {
    const at = pointAt(event);
    const time = scale.time(at);
    const over = all.findIndex((bar) => time >= bar.from && time < bar.to);
    setCursor(over < 0 ? null : over);
    if (pressed.current !== null && Math.abs(at - pressed.current) >= DRAG_PIXELS) {
      setBrush({ anchor: scale.time(pressed.current), at: time });
    }
  }
  function onUp(event: React.PointerEvent): void {
    const start = pressed.current;
    pressed.current = null;
    if (start === null) return;
    if (brush) return zoom(brush.anchor, brush.at);
    const time = scale.time(pointAt(event));
    const bar = all.find((candidate) => time >= candidate.from && time < candidate.to);
    if (bar && bar.count > 0 && answer.interval_seconds > 1) zoom(bar.from, bar.to - 1);
  }
  function onKey(event: React.KeyboardEvent): void {
    const last = all.length - 1;
    if (last < 0) return;
    const at = cursor ?? 0;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      if (event.shiftKey && anchorBar === null) setAnchorBar(at);
      if (!event.shiftKey) setAnchorBar(null);
      setCursor(Math.min(last, Math.max(0, at + (event.key === "ArrowRight" ? 1 : -1))));
    } else if (event.key === "Home") setCursor(0);
    else if (event.key === "End") setCursor(last);
    else if (event.key === "Enter" && cursor !== null) {
      const one = all[anchorBar ?? at];
      const other = all[at];
      if (one && other) zoom(Math.min(one.from, other.from), Math.max(one.to, other.to) - 1);
    } else if (event.key === "Escape" && (brush || anchorBar !== null)) {
      setBrush(null);
      setAnchorBar(null);
    } else return;
    event.preventDefault();
  }

  const under = cursor === null ? undefined : all[cursor];
  const anchored = anchorBar === null ? undefined : all[anchorBar];
  const band = brush
    ? snap(brush.anchor, brush.at)
    : anchored && under
      ? ([Math.min(anchored.from, under.from), Math.max(anchored.to, under.to)] as const)
      : null;
  const highest = Math.max(0, ...all.map((bar) => bar.count));
  return (
    <div className={`histogram ${loading ? "stale" : ""}`}>
      <div
        ref={element}
        className="histogram-plot"
        role="application"
        aria-roledescription="histogram"
        aria-label={`Events over time, ${count(answer.total)} in all. Left and right move between bars, with shift they choose a range, Enter zooms in.`}
        tabIndex={0}
        onPointerDown={onDown}
        onPointerMove={onMove}
        onPointerUp={onUp}
        onPointerLeave={() => pressed.current === null && setCursor(null)}
        onPointerCancel={() => {
          pressed.current = null;
          setBrush(null);
        }}
        onKeyDown={onKey}
      >
        {width > 0 && (
          <svg width={width} height={HEIGHT} aria-hidden="true">
            <line className="axis" x1={LEFT} x2={width - RIGHT} y1={HEIGHT - BOTTOM + 0.5} y2={HEIGHT - BOTTOM + 0.5} />
            {highest > 0 && (
              <>
                <line className="grid" x1={LEFT} x2={width - RIGHT} y1={TOP + 0.5} y2={TOP + 0.5} />
                <text className="tick" x={LEFT - 6} y={TOP + 4} textAnchor="end">
                  {compact(highest)}
                </text>
              </>
            )}
            <text className="tick" x={LEFT - 6} y={HEIGHT - BOTTOM + 4} textAnchor="end">
              0
            </text>
            {ticks(scale.from, scale.to, width).map((at) => (
              <text className="tick" key={at} x={scale.x(at)} y={HEIGHT - 5} textAnchor="middle">
                {formatTick(at, zone, (scale.to - scale.from) / 1000)}
              </text>
            ))}
            {all.map((bar, at) => (
              <BarShape key={bar.from} bar={bar} scale={scale} isUnder={at === cursor} />
            ))}
            {band && (
              <rect
                className="brush"
                x={scale.x(band[0])}
                width={Math.max(1, scale.x(band[1]) - scale.x(band[0]))}
                y={TOP}
                height={HEIGHT - TOP - BOTTOM}
              />
            )}
          </svg>
        )}
      </div>
      <p className="histogram-note" role="status">
        {under ? (
          <>
            {formatInstant(new Date(under.from).toISOString(), zone, 0)} · {count(under.count)}
            {under.parts.map(([name, value]) => (
              <Legend key={name} name={name} value={value} />
            ))}
          </>
        ) : (
          <>
            one bar is {roughly(answer.interval_seconds)}
            {partsOf(all).map((name) => (
              <Legend key={name} name={name} />
            ))}
          </>
        )}
      </p>
    </div>
  );
}

/** The parts that any bar has, in the order of the bars. */
function partsOf(all: Bar[]): string[] {
  const names = new Set(all.flatMap((bar) => bar.parts.map(([name]) => name)));
  return [...names].sort((a, b) => rank(a) - rank(b));
}

function Legend({ name, value }: { name: string; value?: number }): ReactNode {
  return (
    <span className="legend">
      <span className={`dot ${partClass(name)}`} />
      {name} {value !== undefined && count(value)}
    </span>
  );
}

function BarShape({ bar, scale, isUnder }: { bar: Bar; scale: Scale; isUnder: boolean }): ReactNode {
  const left = scale.x(bar.from);
  const gap = scale.x(bar.to) - left > 3 ? 1 : 0;
  const width = Math.max(0.5, scale.x(bar.to) - left - gap);
  const named = bar.parts.reduce((sum, [, value]) => sum + value, 0);
  const parts: [string, number][] = bar.count > named ? [...bar.parts, ["other", bar.count - named]] : bar.parts;
  let below = 0;
  return (
    <g className={isUnder ? "bar under" : "bar"}>
      {parts.map(([name, value]) => {
        const bottom = scale.y(below);
        below += value;
        const top = scale.y(below);
        return (
          <rect key={name} className={partClass(name)} x={left} width={width} y={top} height={Math.max(0, bottom - top)} />
        );
      })}
    </g>
  );
}
