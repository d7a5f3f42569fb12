/** The answers of /api/v1, as far as the console reads them. */

export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json };
export type Source = { [name: string]: Json };

export const KINDS = ["access", "finding", "deadletter", "alert"] as const;
export type Kind = (typeof KINDS)[number];

export interface Caller {
  id: string;
  name: string;
  method: string;
  roles: string[];
  tenants: string[] | null;
}

export interface Session {
  caller: Caller;
  permissions: string[];
  csrf_token: string;
  version: string;
  namespace: string;
  expires_at: string | null;
}

export interface Field {
  name: string;
  type: string;
  searchable: boolean;
  sortable: boolean;
  aggregatable: boolean;
  masked: boolean;
}

export interface Hit {
  index: string;
  id: string;
  kind: Kind;
  source: Source;
}

export interface Lag {
  newest_ingested: string | null;
  seconds: number;
}

/** A range, in event.ingested, of which a live tail did not show all. `to` is not in it. */
export interface Skipped {
  from: string;
  to: string;
}

/** A range of which details are gone: all but those under hold (all_gone), all but one in so many, or some. */
export interface Thinned {
  from: string | null;
  to: string | null;
  keep_one_in: number | null;
  all_gone: boolean;
}

/** Whether all that was taken in within a range is still there. */
export interface Detail {
  complete: boolean;
  thinned: Thinned[];
}

export interface SearchAnswer {
  total: number;
  took_ms: number;
  cursor: string | null;
  from: string;
  to: string;
  lag: Lag | null;
  detail: Detail;
  hits: Hit[];
}

export interface Bucket {
  at: string;
  count: number;
  parts?: Record<string, number>;
}

/** What was counted: documents, or their hourly summaries. */
export type CountedFrom = "details" | "summaries" | "both";

export interface HistogramAnswer {
  from: string;
  to: string;
  interval_seconds: number;
  total: number;
  source: CountedFrom;
  buckets: Bucket[];
}

export interface FacetValue {
  value: Json;
  count: number;
}

export interface Facet {
  values: FacetValue[];
  other: number;
  missing: number;
  distinct: number;
  exact: boolean;
  source: CountedFrom;
}

export interface FacetsAnswer {
  total: number;
  source: CountedFrom;
  facets: Record<string, Facet>;
}

export interface Moment {
  at: string;
  name: string;
  detail: string;
}

export interface Evidence {
  digest: string | null;
  digest_holds: boolean | null;
  content: string;
  producer_id: string | null;
  epoch: number | null;
  sequence: number | null;
  capture_level: string | null;
}

export interface EventAnswer {
  documents: Hit[];
  cited_by: { index: string; id: string; source: Source }[];
  timeline: Moment[];
  related: { by: string; value: string; count: number }[];
  evidence: Evidence;
}

export interface AroundAnswer {
  by: string | null;
  value: string | null;
  event: Hit;
  before: Hit[];
  after: Hit[];
}

export interface QueryCheck {
  ok: boolean;
  normalized: string | null;
  error: { message: string; position: number; next_step: string } | null;
}

export interface SavedSearch {
  id: string;
  name: string;
  query: string;
  since: string;
  until: string;
  kind: Kind;
  columns: string[];
  sort: string;
  shared: boolean;
  owner: string;
  mine: boolean;
}

export interface ExportState {
  id: string;
  state: "ready" | "running" | "done";
  total: number;
  done: number;
}

export interface FindingItem {
  incident: string;
  state: string;
  verdict: string;
  reason: string;
  by: string;
  findings: number;
  finding: Source;
}

/** Incidents, newest first; where there are more than fit, the gravest ones. */
export interface FindingsAnswer {
  /** Of all that were asked for. */
  total: number;
  findings: FindingItem[];
  /** Of the state and the time that were asked for, whatever the severity. */
  by_severity: Record<string, number>;
  complete: boolean;
  /** How many findings, the oldest, were not read. */
  unread: number;
  unread_before: string | null;
}

export interface Baseline {
  unit: string;
  threshold: number | null;
  observed: number | null;
  baseline: number | null;
  interval_seconds: number;
  series: { at: string; value: number }[];
  window: { from: string | null; to: string | null };
  exact: boolean;
}

export interface VerdictTold {
  at: string;
  verdict: string;
  note: string;
  by: string;
  action: string;
}

export interface FindingAnswer {
  finding: Source;
  state: string;
  members: Hit[];
  baseline: Baseline | null;
  verdicts: VerdictTold[];
}

export interface Top {
  value: string;
  count: number;
  tokens: number;
}

export interface OverviewAnswer {
  from: string;
  to: string;
  interval_seconds: number;
  source: CountedFrom;
  /** Of tokens, errors.total, top_models and top_principals. */
  figures_source: CountedFrom;
  total: number;
  traffic: Bucket[];
  tokens: { input: number; output: number };
  errors: { total: number; reasons: FacetValue[]; reasons_source: CountedFrom };
  top_models: Top[];
  top_principals: Top[];
  detectors: { rule: string; name: string; firing: number; resolved: number; last: string | null }[];
  lag: Lag | null;
  storage: {
    indices: { name: string; documents: number; bytes: number }[];
    disk: { total_bytes: number; free_bytes: number } | null;
  } | null;
  /** Null for callers of some tenants, and where Kafka does not answer. */
  pipeline: { role: string; members: number; waiting_messages: number; state: string }[] | null;
}

export interface PolicyRule {
  name: string;
  match: Record<string, string[]>;
  metadata: string;
  redacted: string;
  full: string;
  sample_after: string;
  keep_one_in: number;
}

export interface Policy {
  name: string;
  sha256: string;
  planned_at: string;
  defaults: Record<string, string>;
  classes: Record<string, string>;
  rules: PolicyRule[];
  kinds: Record<string, string>;
  summaries: boolean;
}

export interface Hold {
  id: string;
  at: string;
  by: string;
  reason: string;
  kinds: string[];
  tenant: string;
  trace: string;
  query: string;
  since: string;
  until: string;
}

export interface RetentionAnswer {
  configured: boolean;
  last_run: Source | null;
  thinned: Thinned[];
  policy: Policy | null;
  /** null: not for the caller's roles. */
  holds: Hold[] | null;
  subjects_held: number | null;
}

export interface TokenTold {
  id: string;
  name: string;
  roles: string[];
  tenants: string[] | null;
  state: "active" | "expired" | "revoked";
  created_at: string | null;
  created_by: string;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}

export interface RevealAnswer {
  id: string;
  /** By layer: its state, and its content where it was opened. */
  layers: Record<string, Source>;
}
