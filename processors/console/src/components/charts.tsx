/** Plain charts in SVG. What they show stands beside them as text, too. */
import type { ReactNode } from "react";
import type { Baseline, Bucket } from "../api/types";
import { compact, figure } from "../lib/format";
import { useWidth } from "../lib/hooks";
import { formatTick, type Zone } from "../lib/time";
import { ticks } from "./histogram";

const LEFT = 52;
const RIGHT = 12;
const BOTTOM = 20;
const TOP = 14;
/** Room at the right for the names of levels. */
const LABELS = 104;

interface Plot {
  x: (ms: number) => number;
  y: (value: number) => number;
}

function plot(from: number, to: number, highest: number, width: number, height: number, right = RIGHT): Plot {
  const top = highest > 0 ? highest : 1;
  const span = Math.max(1, to - from);
  return {
    x: (ms) => LEFT + (Math.min(1, Math.max(0, (ms - from) / span))) * (width - LEFT - right),
    y: (value) => TOP + (1 - Math.min(1, value / top)) * (height - TOP - BOTTOM),
  };
}

function TimeAxis(props: { from: number; to: number; width: number; height: number; zone: Zone; x: (ms: number) => number; right?: number }): ReactNode {
  const { from, to, width, height, zone, x, right = RIGHT } = props;
  return (
    <>
      <line className="axis" x1={LEFT} x2={width - right} y1={height - BOTTOM + 0.5} y2={height - BOTTOM + 0.5} />
      {ticks(from, to, width - right).map((at) => (
        <text className="tick" key={at} x={x(at)} y={height - 5} textAnchor="middle">
          {formatTick(at, zone, (to - from) / 1000)}
        </text>
      ))}
    </>
  );
}

/** Counts over time, failures in their own colour. */
export function Traffic(props: { buckets: Bucket[]; from: string; to: string; intervalSeconds: number; zone: Zone; label: string }): ReactNode {
  const { buckets, intervalSeconds, zone, label } = props;
  const [element, width] = useWidth<HTMLDivElement>();
  const height = 150;
  const from = Date.parse(props.from);
  const to = Date.parse(props.to);
  const highest = Math.max(0, ...buckets.map((bucket) => bucket.count));
  const { x, y } = plot(from, to, highest, width, height);
  return (
    <div ref={element} className="chart" role="img" aria-label={label}>
      {width > 0 && (
        <svg width={width} height={height} aria-hidden="true">
          <line className="grid" x1={LEFT} x2={width - RIGHT} y1={TOP + 0.5} y2={TOP + 0.5} />
          <text className="tick" x={LEFT - 6} y={TOP + 4} textAnchor="end">
            {compact(highest)}
          </text>
          <TimeAxis {...{ from, to, width, height, zone, x }} />
          {buckets.map((bucket) => {
            const start = Date.parse(bucket.at);
            const left = x(start);
            const wide = Math.max(0.5, x(start + intervalSeconds * 1000) - left - 1);
            const failed = bucket.parts?.["failure"] ?? 0;
            return (
              <g key={bucket.at}>
                <rect className="part-success" x={left} width={wide} y={y(bucket.count)} height={Math.max(0, y(failed) - y(bucket.count))} />
                <rect className="part-failure" x={left} width={wide} y={y(failed)} height={Math.max(0, y(0) - y(failed))} />
              </g>
            );
          })}
        </svg>
      )}
    </div>
  );
}

/** The figure of a finding over time, with its window, the baseline and the threshold. */
export function BaselineChart({ baseline, zone }: { baseline: Baseline; zone: Zone }): ReactNode {
  const [element, width] = useWidth<HTMLDivElement>();
  const height = 220;
  const { series, threshold, window } = baseline;
  const times = series.map((point) => Date.parse(point.at));
  const ends = [window.from, window.to].flatMap((at) => (at ? [Date.parse(at)] : []));
  const step = baseline.interval_seconds * 1000;
  const from = Math.min(...times, ...ends);
  const to = Math.max(...times.map((at) => at + step), ...ends);
  const lines = [threshold, baseline.baseline].filter((value): value is number => value !== null);
  const highest = 1.08 * Math.max(0, ...series.map((point) => point.value), ...lines, baseline.observed ?? 0);
  const { x, y } = plot(from, to, highest, width, height, LABELS);
  const [start, end] = [window.from ? Date.parse(window.from) : null, window.to ? Date.parse(window.to) : null];
  // The window's own figure stands in the middle of its band, however short that is.
  const middles = times.map((time) => time + (time === start && end !== null ? Math.min(step, end - time) : step) / 2);
  const path = series.map((point, at) => `${at ? "L" : "M"}${x(middles[at] ?? 0).toFixed(1)} ${y(point.value).toFixed(1)}`).join("");
  const level = (name: string, value: number | null, kind: string): ReactNode =>
    value !== null && (
      <g className={`level ${kind}`}>
        <line x1={LEFT} x2={width - LABELS} y1={y(value)} y2={y(value)} />
        <text x={width - LABELS + 5} y={y(value) + 4}>
          {name} {figure(value)}
        </text>
      </g>
    );
  const label = `${baseline.unit || "figure"} over time: observed ${baseline.observed ?? "unknown"}, baseline ${baseline.baseline ?? "unknown"}, threshold ${threshold ?? "none"}`;
  return (
    <div ref={element} className="chart" role="img" aria-label={label}>
      {width > 0 && series.length > 0 && (
        <svg width={width} height={height} aria-hidden="true">
          {start !== null && end !== null && (
            <rect className="window" x={x(start)} width={Math.max(2, x(end) - x(start))} y={TOP} height={height - TOP - BOTTOM} />
          )}
          <text className="tick" x={LEFT - 6} y={TOP + 4} textAnchor="end">
            {compact(highest)}
          </text>
          <text className="tick" x={LEFT - 6} y={height - BOTTOM + 4} textAnchor="end">
            0
          </text>
          <TimeAxis {...{ from, to, width, height, zone, x }} right={LABELS} />
          <path className="series" d={path} />
          {series.map((point, at) => {
            const time = times[at] ?? 0;
            const within = start !== null && end !== null && time + step > start && (time < end || time === start);
            return <circle key={point.at} className={within ? "point within" : "point"} cx={x(middles[at] ?? 0)} cy={y(point.value)} r={within ? 3.5 : 2} />;
          })}
          {level("threshold", threshold, "threshold")}
          {level("baseline", baseline.baseline, "usual")}
        </svg>
      )}
    </div>
  );
}
