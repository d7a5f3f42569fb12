/** What this browser remembers: how things look, never what was looked at. */
import { useSyncExternalStore } from "react";
import type { Zone } from "./time";

export type Theme = "system" | "light" | "dark";

export interface Preferences {
  theme: Theme;
  zone: Zone;
  shortcuts: boolean;
  facetsOpen: boolean;
}

const KEY = "gatebook.preferences";
const DEFAULTS: Preferences = { theme: "system", zone: "utc", shortcuts: true, facetsOpen: true };
const listeners = new Set<() => void>();
let current: Preferences = { ...DEFAULTS, ...stored() };

function stored(): Partial<Preferences> {
  try {
    return JSON.parse(window.localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>;
  } catch {
    return {}; // storage is off, or holds something else
  }
}

export function setPreferences(changed: Partial<Preferences>): void {
  current = { ...current, ...changed };
  try {
    window.localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // storage is off: it holds until the page is left
  }
  applyTheme();
  for (const listener of listeners) listener();
}

export function applyTheme(): void {
  const root = document.documentElement;
  if (current.theme === "system") delete root.dataset["theme"];
  else root.dataset["theme"] = current.theme;
}

export function usePreferences(): Preferences {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}
