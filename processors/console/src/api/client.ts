/** Talks to /api/v1 of the server that sent this page, and to nothing else. */

const BASE = "/api/v1";

/** What the API says when it does not do what was asked. `position` is an index into the query. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
    readonly position: number | null = null,
    readonly nextStep: string = "",
  ) {
    super(message);
  }
}

let csrfToken = "";
let clockOffsetMs = 0;

/** The token of this session; unsafe requests are refused without it. */
export function setCsrfToken(token: string): void {
  csrfToken = token;
}

/** Now by the server's clock, where this one is known to be wrong: it must not shift what "last hour" is. */
export function serverNow(): Date {
  return new Date(Date.now() + clockOffsetMs);
}

/** What is told is the second in which the server answered, between `sentMs` and now of this clock. */
function noteClock(response: Response, sentMs: number): void {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  const least = date - Date.now();
  const most = date + 1_000 - sentMs;
  clockOffsetMs = Math.min(Math.max(0, least), most); // the least that explains it; mostly none
}

/** Told to the page when the session has ended under it. */
export const SIGNED_OUT = "gatebook:signed-out";

async function failure(response: Response): Promise<ApiError> {
  if (response.status === 401) window.dispatchEvent(new Event(SIGNED_OUT));
  const body: unknown = await response.json().catch(() => null);
  const error = (body as { error?: Record<string, unknown> } | null)?.error ?? {};
  const text = (name: string): string => (typeof error[name] === "string" ? (error[name] as string) : "");
  const position = typeof error["position"] === "number" ? (error["position"] as number) : null;
  const message = text("message") || `the server answered with status ${response.status}`;
  return new ApiError(response.status, text("type") || "http", message, position, text("next_step"));
}

async function send(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = csrfToken;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sentMs = Date.now();
  let response: Response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers,
      credentials: "same-origin",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached.", null, "see that gatebook serve runs");
  }
  noteClock(response, sentMs);
  if (!response.ok) throw await failure(response);
  return response;
}

async function answer<T>(response: Response): Promise<T> {
  return (response.status === 204 ? null : parsed(await response.text())) as T;
}

/** JSON whose integers are exact: nanoseconds do not fit into a number. */
export function parsed(text: string): unknown {
  return JSON.parse(text, (_: string, value: unknown, context?: { source?: string }) => {
    const inexact = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return inexact && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context?.source ?? 0) : value;
  });
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return answer<T>(await send("GET", path, undefined, signal));
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return answer<T>(await send("POST", path, body, signal));
}

export async function remove<T>(path: string): Promise<T> {
  return answer<T>(await send("DELETE", path, undefined));
}

/** End the session at the server. */
export async function signOut(): Promise<void> {
  const response = await fetch("/logout", { method: "POST", headers: { "X-CSRF-Token": csrfToken } });
  if (!response.ok) throw await failure(response);
}

/** A path with its values escaped: path`/events/${id}`. */
export function path(parts: TemplateStringsArray, ...values: string[]): string {
  return parts.reduce((whole, part, at) => whole + encodeURIComponent(values[at - 1] ?? "") + part);
}

/** `?a=1&b=2`, without what is empty. */
export function queryString(values: Record<string, string>): string {
  const given = Object.entries(values).filter(([, value]) => value !== "");
  return given.length ? `?${new URLSearchParams(given).toString()}` : "";
}

/** Address of the live tail's event stream; `after` is the last id of one that was open before. */
export function tailUrl(query: string, kind: string, after = ""): string {
  return `${BASE}/tail${queryString({ query, kind, after })}`;
}

/** Why the tail is refused, which an event stream does not tell; null where it is not. */
export async function tailRefusal(query: string, kind: string, signal: AbortSignal): Promise<ApiError | null> {
  try {
    const response = await send("GET", `/tail${queryString({ query, kind })}`, undefined, signal);
    await response.body?.cancel();
    return null;
  } catch (error) {
    return error instanceof ApiError ? error : null; // aborted: nobody waits for it
  }
}

/** Address a browser downloads an export from. */
export function exportUrl(id: string): string {
  return `${BASE}${path`/exports/${id}/data`}`;
}
