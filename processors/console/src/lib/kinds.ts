/** What is shown of each kind of document unless somebody chose otherwise. */
import type { Kind } from "../api/types";

export const KIND_NAMES: Record<Kind, string> = {
  access: "Accesses",
  finding: "Findings",
  deadletter: "Dead letters",
  alert: "Alert deliveries",
};

export const COLUMNS: Record<Kind, string[]> = {
  access: [
    "@timestamp",
    "event.outcome",
    "user.id",
    "service.name",
    "gen_ai.request.model",
    "event.action",
    "http.response.status_code",
    "event.duration",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "source.ip",
  ],
  finding: ["@timestamp", "gatebook.severity", "rule.id", "event.action", "event.reason", "gatebook.principal", "gatebook.observed", "gatebook.threshold"],
  deadletter: ["@timestamp", "gatebook.stage", "event.reason", "error.type", "error.message", "gatebook.count", "gatebook.producer_id"],
  alert: ["@timestamp", "event.action", "event.outcome", "rule.id", "rule.name", "event.duration", "event.reason"],
};

/** At most twelve a request; masked ones are left out. */
export const FACETS: Record<Kind, string[]> = {
  access: [
    "event.outcome",
    "event.reason",
    "service.name",
    "gen_ai.request.model",
    "event.action",
    "user.id",
    "organization.id",
    "gatebook.identity.method",
    "source.ip",
    "http.response.status_code",
    "gatebook.content.signals",
    "gatebook.capture.level",
  ],
  finding: ["gatebook.severity", "rule.id", "event.action", "gatebook.page", "gatebook.verdict", "gatebook.team", "service.name", "organization.id", "gatebook.principal"],
  deadletter: ["event.reason", "gatebook.stage", "error.type", "gatebook.producer_id"],
  alert: ["event.outcome", "event.action", "rule.id", "http.response.status_code"],
};

export const SPLIT: Partial<Record<Kind, string>> = { access: "event.outcome", alert: "event.outcome" };
export const MAX_FACETS = 12;
export const TIME = "@timestamp";
export const DEFAULT_SORT = "@timestamp:desc";

const SHORT: Record<string, string> = {
  "@timestamp": "Time",
  "event.outcome": "Outcome",
  "event.reason": "Reason",
  "event.action": "Action",
  "event.duration": "Duration",
  "user.id": "User",
  "user.name": "User name",
  "service.name": "Service",
  "gen_ai.request.model": "Model",
  "http.response.status_code": "Status",
  "gen_ai.usage.input_tokens": "Tokens in",
  "gen_ai.usage.output_tokens": "Tokens out",
  "source.ip": "Address",
  "organization.id": "Tenant",
  "rule.id": "Rule",
  "gatebook.severity": "Severity",
  "gatebook.principal": "Principal",
  "gatebook.observed": "Observed",
  "gatebook.threshold": "Threshold",
  "gatebook.identity.method": "Identity by",
  "gatebook.content.signals": "Content signals",
  "gatebook.capture.level": "Capture level",
};

/** A short name of a field, or the name itself. */
export function fieldName(field: string): string {
  return SHORT[field] ?? field;
}
