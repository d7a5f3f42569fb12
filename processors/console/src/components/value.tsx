/** One value of a field, as a cell or a line. */
import { Fragment, type ReactNode } from "react";
import type { Json } from "../api/types";
import { plain } from "../lib/documents";
import { count, duration, figure } from "../lib/format";
import { formatInstant, type Zone } from "../lib/time";
import { Icon, SafeText } from "./basics";

/** What the server puts in the place of what the caller may not see. */
export const MASK = "[masked]";
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$/;
const OUTCOMES = ["success", "failure", "unknown"];
const SEVERITIES = ["critical", "error", "warning", "info"];
const STATES = ["firing", "resolved"];

export function Value(props: { field: string; value: Json | undefined; zone: Zone; limit?: number; exact?: boolean }): ReactNode {
  const { field, value, zone, limit, exact } = props;
  if (value === undefined || value === null || value === "") return <span className="none">–</span>;
  if (value === MASK) return <Masked />;
  if (typeof value === "number") return <span className="number">{numberText(field, value, exact)}</span>;
  if (typeof value === "string") {
    if (INSTANT.test(value)) return <time dateTime={value}>{formatInstant(value, zone, exact ? 9 : 3)}</time>;
    if (field === "event.outcome" && OUTCOMES.includes(value)) return <span className={`tag outcome-${value}`}>{value}</span>;
    if (field === "gatebook.severity" && SEVERITIES.includes(value)) return <Severity name={value} />;
    if (field === "event.action" && STATES.includes(value)) return <span className={`tag state-${value}`}>{value}</span>;
  }
  return <SafeText text={plain(value)} {...(limit === undefined ? {} : { limit })} />;
}

function numberText(field: string, value: number, exact = false): string {
  if (field === "event.duration") return exact ? `${duration(value)} (${count(value)} ns)` : duration(value);
  if (field === "gatebook.epoch" || field.endsWith("status_code") || field.endsWith(".port")) return String(value);
  return figure(value);
}

export function Masked(): ReactNode {
  return (
    <span className="masked" title="Your roles do not show this field">
      <Icon name="lock" /> masked
    </span>
  );
}

export function Severity({ name }: { name: string }): ReactNode {
  return <span className={`tag severity-${name}`}>{name}</span>;
}

/** Broken after a dot or an underscore, where there is no room for all of it. */
export function FieldName({ name }: { name: string }): ReactNode {
  return name.split(/(?<=[._])/).map((part, place) => (
    <Fragment key={place}>
      {place > 0 && <wbr />}
      <SafeText text={part} limit={120} />
    </Fragment>
  ));
}
