import { createContext, useContext } from "react";
import type { Field, Session } from "../api/types";

export const SessionContext = createContext<Session | null>(null);

/** Who is signed in. Only below the shell, which asks for it first. */
export function useSession(): Session {
  const session = useContext(SessionContext);
  if (!session) throw new Error("no session here");
  return session;
}

/** Whether the caller may do this. The server decides; here it is only not offered. */
export function may(session: Session, permission: string): boolean {
  return session.permissions.includes(permission);
}

/** Fields of the kind at hand, by name. */
export type FieldIndex = ReadonlyMap<string, Field>;

/** Whether one may filter on a field: one that is counted by, or an id that is only searched. */
export function isFilterable(fields: FieldIndex, name: string): boolean {
  const field = fields.get(name);
  if (field === undefined || field.masked) return false;
  return field.aggregatable || field.type === "flattened" || (field.type === "keyword" && field.searchable);
}
