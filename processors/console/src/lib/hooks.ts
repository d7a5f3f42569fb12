import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "../api/client";

/** What became of a request. While it is repeated, `data` is what it answered before. */
export interface Requested<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
}

function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, "internal", error instanceof Error ? error.message : String(error));
}

/** Runs a request whenever `key` changes; an answer that comes too late is dropped. */
export function useRequest<T>(key: string | null, run: (signal: AbortSignal) => Promise<T>): Requested<T> {
  const [state, setState] = useState<Requested<T>>({ data: null, error: null, loading: key !== null });
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    if (key === null) return undefined;
    const controller = new AbortController();
    setState((before) => ({ ...before, loading: true }));
    latest.current(controller.signal).then(
      (data) => {
        if (!controller.signal.aborted) setState({ data, error: null, loading: false });
      },
      (error: unknown) => {
        if (!controller.signal.aborted) setState({ data: null, error: asApiError(error), loading: false });
      },
    );
    return () => controller.abort();
  }, [key]);
  return state;
}

/** One act at a time: whether it runs, and how it failed. */
export function useAct<A extends unknown[]>(
  act: (...given: A) => Promise<void>,
): { run: (...given: A) => void; busy: boolean; error: ApiError | null } {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const latest = useRef(act);
  latest.current = act;
  const run = useCallback((...given: A) => {
    setBusy(true);
    setError(null);
    latest
      .current(...given)
      .catch((failed: unknown) => setError(asApiError(failed)))
      .finally(() => setBusy(false));
  }, []);
  return { run, busy, error };
}

/** Width of an element in CSS pixels; 0 before it is laid out. */
export function useWidth<E extends Element>(): [React.RefObject<E | null>, number] {
  const element = useRef<E>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!element.current) return undefined;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

/** Single-key shortcuts: off while somebody types, holds a modifier, or switched them off. */
export function useKeys(keys: Record<string, (event: KeyboardEvent) => void>, enabled: boolean): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    function onKey(event: KeyboardEvent): void {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const target = event.target as HTMLElement;
      const types = target.matches("input, textarea, select, [contenteditable]");
      if (event.key !== "Escape" && (types || !enabled)) return;
      if (document.querySelector("dialog[open]")) return; // a dialog keeps its keys
      const act = latest.current[event.key];
      if (act) act(event);
    }
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [enabled]);
}
