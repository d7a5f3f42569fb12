/** Reading documents by dotted names. Keys may hold dots themselves. */
import type { Json, Source } from "../api/types";

function isObject(value: Json | undefined): value is Source {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value of a dotted field; undefined where the document has none. */
export function valueAt(document: Source, name: string): Json | undefined {
  if (Object.hasOwn(document, name)) return document[name];
  for (let dot = name.indexOf("."); dot > 0; dot = name.indexOf(".", dot + 1)) {
    const inner = document[name.slice(0, dot)];
    if (!isObject(inner)) continue;
    const found = valueAt(inner, name.slice(dot + 1));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** What a column shows: of a caller without a user id, its principal, such as a key's or an address's. */
export function cellAt(document: Source, name: string): Json | undefined {
  const value = valueAt(document, name);
  if (name !== "user.id" || (value !== undefined && value !== null && value !== "")) return value;
  const principal = valueAt(document, "gatebook.principal");
  return principal === "[masked]" ? value : principal;
}

/** The value as text; empty where there is none. */
export function textAt(document: Source, name: string): string {
  const value = valueAt(document, name);
  return value === undefined || value === null ? "" : plain(value);
}

/** The value as a number; null where it is none. */
export function numberAt(document: Source, name: string): number | null {
  const value = valueAt(document, name);
  return typeof value === "number" ? value : null;
}

/** Strings as they are, lists with commas, the rest as JSON. */
export function plain(value: Json): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "bigint") return String(value);
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner));
}

/** Every field of a document, dotted, sorted by name. */
export function flatten(document: Source, prefix = ""): [string, Json][] {
  const found: [string, Json][] = [];
  for (const [name, value] of Object.entries(document)) {
    if (isObject(value)) found.push(...flatten(value, `${prefix}${name}.`));
    else found.push([`${prefix}${name}`, value]);
  }
  return prefix ? found : found.sort(([a], [b]) => (a < b ? -1 : 1));
}
