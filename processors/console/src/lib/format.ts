/** Figures as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 1,234,567 */
export function count(value: number): string {
  return whole.format(value);
}

/** 1.2M */
export function compact(value: number): string {
  return Math.abs(value) < 1 && value !== 0 ? three.format(value) : short.format(value);
}

/** A measured figure, with at most three decimals. */
export function figure(value: number): string {
  return three.format(value);
}

/** 12.3 MiB */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = value;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[unit]}`;
}

/** Nanoseconds as ms or s. */
export function duration(nanoseconds: number): string {
  const ms = nanoseconds / 1e6;
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  return ms < 10_000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** 4.2 % */
export function percent(part: number, all: number): string {
  return all > 0 ? `${((100 * part) / all).toFixed(part / all < 0.1 ? 1 : 0)} %` : "–";
}

/** "1 event", "2 events" */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}
