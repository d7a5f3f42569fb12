/** Points in time: what is asked for, and how it is shown. */

export type Zone = "utc" | "local";

/** A range of time: the last so much (`15m`, `7d`), or from one instant up to another. */
export type Range = { last: string } | { from: string; to: string };

export const PRESETS = ["15m", "1h", "4h", "24h", "7d", "30d", "90d", "365d"] as const;
export const DEFAULT_LAST = "24h";

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
const UNIT_NAMES: Record<string, string> = { s: "second", m: "minute", h: "hour", d: "day", w: "week" };
const LAST = /^([1-9]\d{0,4})([smhdw])$/;

export function isRelative(range: Range): range is { last: string } {
  return "last" in range;
}

/** Seconds of `15m`; null where it is no such length. */
export function lengthSeconds(last: string): number | null {
  const found = LAST.exec(last);
  return found ? Number(found[1]) * (UNIT_SECONDS[found[2] ?? ""] ?? 0) : null;
}

/** "Last 15 minutes". */
export function lastName(last: string): string {
  const found = LAST.exec(last);
  if (!found) return last;
  const count = Number(found[1]);
  const unit = UNIT_NAMES[found[2] ?? ""] ?? "";
  return count === 1 ? `Last ${unit}` : `Last ${count} ${unit}s`;
}

/** The range as two instants. */
export function absolute(range: Range, now: Date): { from: string; to: string } {
  if (!isRelative(range)) return range;
  const seconds = lengthSeconds(range.last) ?? 86_400;
  return { from: new Date(now.getTime() - seconds * 1000).toISOString(), to: now.toISOString() };
}

export function isInstant(text: string | null): text is string {
  return text !== null && /^\d{4}-\d{2}-\d{2}T/.test(text) && !Number.isNaN(Date.parse(text));
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

function parts(date: Date, zone: Zone): { day: string; clock: string } {
  if (zone === "utc") {
    const iso = date.toISOString();
    return { day: iso.slice(0, 10), clock: iso.slice(11, 19) };
  }
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return { day, clock: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}` };
}

/** Digits after the second in an ISO instant, without the dot. */
function fraction(iso: string): string {
  return /\.(\d+)/.exec(iso)?.[1] ?? "";
}

/** 2026-11-23 10:15:00.123; with `digits` 9 all that the document holds. */
export function formatInstant(iso: string, zone: Zone, digits = 3): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  const { day, clock } = parts(date, zone);
  const rest = fraction(iso).padEnd(digits, "0").slice(0, digits);
  return `${day} ${clock}${digits ? `.${rest}` : ""}`;
}

/** As short as a tick of an axis over `spanSeconds` may be. */
export function formatTick(ms: number, zone: Zone, spanSeconds: number): string {
  const { day, clock } = parts(new Date(ms), zone);
  if (spanSeconds <= 300) return clock;
  if (spanSeconds <= 2 * 86_400) return clock.slice(0, 5);
  if (spanSeconds <= 14 * 86_400) return `${day.slice(5)} ${clock.slice(0, 5)}`;
  return day;
}

/** "UTC", or "UTC+01:00" for the zone of this browser. */
export function zoneName(zone: Zone): string {
  if (zone === "utc") return "UTC";
  const minutes = -new Date().getTimezoneOffset();
  const sign = minutes < 0 ? "−" : "+";
  return `UTC${sign}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
}

/** As it is typed: 2026-11-23 10:15:00, in the zone that is shown. */
export function toInput(iso: string, zone: Zone): string {
  const { day, clock } = parts(new Date(iso), zone);
  return `${day} ${clock}`;
}

/** Back from what was typed; a day alone is its first instant. Null where it is no point in time. */
export function fromInput(text: string, zone: Zone): string | null {
  const found = /^(\d{4}-\d{2}-\d{2})(?:[T ]+(\d{2}:\d{2})(:\d{2}(?:\.\d{1,3})?)?)?\s*(Z|[+-]\d{2}:\d{2})?$/.exec(text.trim());
  if (!found) return null;
  const [, day, clock = "00:00", seconds = ":00", offset = zone === "utc" ? "Z" : ""] = found;
  const date = new Date(`${day}T${clock}${seconds}${offset}`);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

/** "3 s", "5 min", "2 h", "4 d": how long, roughly. */
export function roughly(seconds: number): string {
  const value = Math.max(0, seconds);
  if (value < 90) return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`;
  if (value < 5_400) return `${Math.round(value / 60)} min`;
  if (value < 172_800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86_400)} d`;
}
