/** Beside the count: whether it is without what people do in Gatebook itself. */
import type { ReactNode } from "react";
import { leavesOwnOut, type SearchState } from "../lib/search-state";

export function OwnSwitch({ state, onChange }: { state: SearchState; onChange: (own: boolean) => void }): ReactNode {
  if (state.kind !== "access") return null;
  return (
    <label className="switch own" title="Searches, logins and commands of Gatebook's own users. The Overview leaves them out, too.">
      <input type="checkbox" checked={leavesOwnOut(state)} onChange={(event) => onChange(!event.target.checked)} /> without Gatebook's own
    </label>
  );
}
