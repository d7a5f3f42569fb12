import { useId, useState, type ReactNode } from "react";

/** Tabs as ARIA wants them: arrow keys move, one tab stop. The choice outlives the shown event. */
let chosen = "";

export function Tabs({ tabs }: { tabs: { name: string; content: () => ReactNode }[] }): ReactNode {
  const id = useId();
  const [name, setName] = useState(chosen);
  const at = Math.max(0, tabs.findIndex((tab) => tab.name === name));
  const choose = (next: number, focus: boolean): void => {
    const tab = tabs[(next + tabs.length) % tabs.length];
    if (!tab) return;
    chosen = tab.name;
    setName(tab.name);
    if (focus) document.getElementById(`${id}-${tab.name}`)?.focus();
  };
  return (
    <div className="tabbed">
      <div
        role="tablist"
        className="tabs"
        onKeyDown={(event) => {
          if (event.key === "ArrowRight") choose(at + 1, true);
          if (event.key === "ArrowLeft") choose(at - 1, true);
        }}
      >
        {tabs.map((tab, index) => (
          <button
            type="button"
            role="tab"
            key={tab.name}
            id={`${id}-${tab.name}`}
            aria-selected={index === at}
            aria-controls={`${id}-panel`}
            tabIndex={index === at ? 0 : -1}
            onClick={() => choose(index, false)}
          >
            {tab.name}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${tabs[at]?.name ?? ""}`} tabIndex={0} className="tabpanel">
        {tabs[at]?.content()}
      </div>
    </div>
  );
}
