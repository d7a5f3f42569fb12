/** What the search page shows, as its address says it. */
import { KINDS, type Kind, type Skipped } from "../api/types";
import { COLUMNS, DEFAULT_SORT } from "./kinds";
import { combined, filterFromParam, filterToParam, namesOwn, WITHOUT_OWN, type Filter } from "./query";
import { navigate, type Location } from "./router";
import type { FieldIndex } from "./session";
import { absolute, DEFAULT_LAST, isInstant, isRelative, type Range } from "./time";

export interface SearchState {
  query: string;
  filters: Filter[];
  range: Range;
  kind: Kind;
  columns: string[];
  sort: string;
  /** Whether accesses to Gatebook itself are shown, too. */
  own: boolean;
}

const MAX_COLUMNS = 40;

export function fromLocation(location: Location): SearchState {
  const params = new URLSearchParams(location.search);
  const kind = KINDS.find((name) => name === params.get("kind")) ?? "access";
  const columns = (params.get("columns") ?? "").split(",").filter((name) => /^[@\w][\w.@-]*$/.test(name));
  return {
    query: params.get("q") ?? "",
    filters: params.getAll("f").flatMap((text) => filterFromParam(text) ?? []),
    range: rangeOf(params, location.last),
    kind,
    columns: columns.length ? columns.slice(0, MAX_COLUMNS) : COLUMNS[kind],
    sort: params.get("sort") || DEFAULT_SORT,
    own: params.get("own") === "1",
  };
}

/** Whether Gatebook's own acts are left out: not where they are asked for by name. */
export function leavesOwnOut(state: SearchState): boolean {
  return state.kind === "access" && !state.own && !namesOwn(state.query, state.filters);
}

/** The chips, with those that nobody chose. */
export function allFilters(state: SearchState): Filter[] {
  return leavesOwnOut(state) ? [...state.filters, ...WITHOUT_OWN] : state.filters;
}

/** What is asked of the server. */
export function questionOf(state: SearchState): string {
  return combined(state.query, allFilters(state));
}

function rangeOf(params: URLSearchParams, last: string | null): Range {
  if (last) return { last };
  const from = params.get("from");
  const to = params.get("to");
  return isInstant(from) && isInstant(to) ? { from, to } : { last: DEFAULT_LAST };
}

/** The columns to show. What nobody chose is left out where the caller may not see it. */
export function columnsOf(state: SearchState, fields: FieldIndex): string[] {
  if (state.columns.join() !== COLUMNS[state.kind].join()) return state.columns;
  return state.columns.filter((name) => !fields.get(name)?.masked);
}

/** The permalink: always of absolute time. */
export function address(state: SearchState, now: Date): string {
  const { from, to } = absolute(state.range, now);
  const params = new URLSearchParams();
  if (state.query) params.set("q", state.query);
  for (const filter of state.filters) params.append("f", filterToParam(filter));
  params.set("from", from);
  params.set("to", to);
  if (state.kind !== "access") params.set("kind", state.kind);
  if (state.columns.join() !== COLUMNS[state.kind].join()) params.set("columns", state.columns.join(","));
  if (state.sort !== DEFAULT_SORT) params.set("sort", state.sort);
  if (state.own) params.set("own", "1");
  return `/search?${params.toString()}`;
}

/** Around when it came in: producers bring late what waited in their spool, and clocks differ. */
const BEFORE_MS = 7 * 86_400_000;
const BEHIND_MS = 86_400_000;

/** A search for what a live tail of this state did not show. */
export function skippedAddress(state: SearchState, { from, to }: Skipped, now: Date): string {
  const came = `event.ingested >= "${from}" and event.ingested < "${to}"`;
  const query = state.query.trim() === "" ? came : `(${state.query}) and ${came}`;
  const moved = (instant: string, ms: number): string => new Date(Date.parse(instant) + ms).toISOString();
  return address({ ...state, query, range: { from: moved(from, -BEFORE_MS), to: moved(to, BEHIND_MS) } }, now);
}

export function show(state: SearchState, now: Date, options: { replace?: boolean } = {}): void {
  navigate(address(state, now), { ...options, last: isRelative(state.range) ? state.range.last : null });
}

/** What a request of this state asks for, at the instants its address names. */
export interface Asked {
  query: string;
  since: string;
  until: string;
  kind: Kind;
}

export function asked(state: SearchState, now: Date): Asked {
  const { from, to } = absolute(state.range, now);
  return { query: questionOf(state), since: from, until: to, kind: state.kind };
}
