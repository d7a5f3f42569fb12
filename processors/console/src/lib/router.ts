/** The address bar as state. A relative range lives in the history entry: the address itself is
 * always absolute, so what is copied from it shows the same events to everybody. */
import { useSyncExternalStore } from "react";

export interface Location {
  path: string;
  search: string;
  /** `15m` while the view follows the clock. Survives a reload, never a copied address. */
  last: string | null;
}

const CHANGED = "gatebook:location";
let current = read();

function read(): Location {
  const state = window.history.state as { last?: unknown } | null;
  const last = typeof state?.last === "string" ? state.last : null;
  return { path: window.location.pathname, search: window.location.search, last };
}

function announce(): void {
  current = read();
  window.dispatchEvent(new Event(CHANGED));
}

function subscribe(listener: () => void): () => void {
  window.addEventListener(CHANGED, listener);
  window.addEventListener("popstate", announce);
  return () => {
    window.removeEventListener(CHANGED, listener);
    window.removeEventListener("popstate", announce);
  };
}

export function useLocation(): Location {
  return useSyncExternalStore(subscribe, () => current);
}

/** Go to an address of this console. */
export function navigate(address: string, options: { replace?: boolean; last?: string | null } = {}): void {
  const state = { last: options.last ?? null };
  if (options.replace) window.history.replaceState(state, "", address);
  else window.history.pushState(state, "", address);
  announce();
}
