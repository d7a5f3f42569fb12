/** Query text and the chips beside it. The server alone parses queries; here they are only written. */
import type { Json } from "../api/types";
import { plain } from "./documents";

/** One chip: a field has a value, has none (`value` null), or not so. */
export interface Filter {
  field: string;
  value: string | null;
  exclude: boolean;
}

function quoted(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

/** The clause a chip stands for. */
export function clause(filter: Filter): string {
  const positive = filter.value === null ? `${filter.field}:*` : `${filter.field}:${quoted(filter.value)}`;
  const isNegative = filter.value === null ? !filter.exclude : filter.exclude;
  return isNegative ? `not ${positive}` : positive;
}

/** Under these names Gatebook records what its own users do: the Overview leaves them out, too. */
const OWN_SERVICES = ["gatebook-operator", "gatebook-policy"];
export const WITHOUT_OWN: Filter[] = OWN_SERVICES.map((value) => ({ field: "service.name", value, exclude: true }));

/** Whether somebody asks for Gatebook's own acts by their service, or leaves them out that way. */
export function namesOwn(text: string, filters: Filter[]): boolean {
  return OWN_SERVICES.some((name) => text.includes(name) || filters.some((filter) => filter.value === name));
}

/** What is asked of the server: the text and all chips together. */
export function combined(text: string, filters: Filter[]): string {
  const clauses = filters.map(clause);
  if (text.trim() === "") return clauses.join(" and ");
  return clauses.length ? `(${text}) and ${clauses.join(" and ")}` : text;
}

/** Chips in an address: `+field=value`, `-field=value`, `+field` for "has none". */
export function filterToParam(filter: Filter): string {
  const sign = filter.exclude ? "-" : "+";
  return filter.value === null ? `${sign}${filter.field}` : `${sign}${filter.field}=${filter.value}`;
}

export function filterFromParam(text: string): Filter | null {
  const sign = text[0];
  if (sign !== "+" && sign !== "-") return null;
  const at = text.indexOf("=");
  const field = at < 0 ? text.slice(1) : text.slice(1, at);
  if (!/^[@\w][\w.@-]*$/.test(field)) return null;
  return { field, value: at < 0 ? null : text.slice(at + 1), exclude: sign === "-" };
}

/** Chips after one was chosen: the same field and value stand in one chip only. */
export function withFilter(filters: Filter[], added: Filter): Filter[] {
  return [...filters.filter((f) => f.field !== added.field || f.value !== added.value), added];
}

/** A value as a chip holds it. */
export function filterValue(value: Json): string | null {
  return value === null ? null : plain(value);
}
