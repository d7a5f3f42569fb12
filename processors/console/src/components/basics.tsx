/** Small parts that every page uses. */
import { useEffect, useId, useRef, type ReactNode } from "react";
import type { ApiError } from "../api/client";
import { pieces } from "../lib/hostile";
import { roughly } from "../lib/time";

/** Text somebody else wrote: isolated from its surroundings, steering characters made visible. */
export function SafeText({ text, limit }: { text: string; limit?: number }): ReactNode {
  const cut = limit !== undefined && text.length > limit;
  return (
    <bdi className="safe">
      {pieces(cut ? text.slice(0, limit) : text).map((piece, at) =>
        piece.escape ? (
          <span className="escape" key={at}>
            {piece.text}
          </span>
        ) : (
          piece.text
        ),
      )}
      {cut && <span className="cut">…</span>}
    </bdi>
  );
}

const ICONS: Record<string, string> = {
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14ZM20 20l-4-4",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  columns: "M4 5h16v14H4zM10 5v14M15 5v14",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  star: "M12 4l2.5 5.2 5.5.8-4 4 1 5.6-5-2.7-5 2.7 1-5.6-4-4 5.5-.8z",
  refresh: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  play: "M7 5l12 7-12 7z",
  pause: "M8 5v14M16 5v14",
  moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10Z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16ZM12 8v4l3 2",
  lock: "M6 11h12v9H6zM8 11V8a4 4 0 0 1 8 0v3",
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  down: "M6 9l6 6 6-6",
  zoomOut: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14ZM20 20l-4-4M8 11h6",
  filter: "M4 5h16l-6 8v6l-4-2v-4z",
  gate: "M4 21V9a8 8 0 0 1 16 0v12M9 21V10M15 21V10M4 15h16M12 21V8",
  warn: "M12 4l9 16H3zM12 10v4M12 17v.5",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
};

export function Icon({ name }: { name: string }): ReactNode {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={ICONS[name] ?? ""} />
    </svg>
  );
}

interface ButtonProps {
  onClick: () => void;
  children?: ReactNode;
  icon?: string;
  /** What a screen reader says; needed where there is only an icon. */
  label?: string | undefined;
  kind?: "plain" | "primary" | "quiet" | "danger";
  pressed?: boolean;
  disabled?: boolean;
  expanded?: boolean;
  className?: string;
}

export function Button(props: ButtonProps): ReactNode {
  const { onClick, children, icon, label, kind = "plain", pressed, disabled, expanded, className = "" } = props;
  return (
    <button
      type="button"
      className={`button ${kind} ${children ? "" : "icon-only"} ${className}`}
      onClick={onClick}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      aria-expanded={expanded}
      disabled={disabled}
    >
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

/** A link within the console. */
export function Link({ to, children, className }: { to: string; children: ReactNode; className?: string }): ReactNode {
  return (
    <a href={to} className={className} data-link="">
      {children}
    </a>
  );
}

const LATE_SECONDS = 300;

/** How fresh the log is. */
export function LagBadge({ seconds }: { seconds: number }): ReactNode {
  return (
    <span className={`badge ${seconds > LATE_SECONDS ? "late" : ""}`} title="Age of the newest event that a search can find. It grows while nothing happens.">
      newest event {roughly(seconds)} ago
    </span>
  );
}

/** What went wrong, and what to do about it. */
export function Failure({ error, query }: { error: ApiError; query?: string }): ReactNode {
  const pointed = query !== undefined && error.position !== null;
  return (
    <div className="notice failure" role="alert">
      <Icon name="warn" />
      <div>
        <strong>
          <SafeText text={error.message.split("\n")[0] ?? ""} limit={400} />
        </strong>
        {pointed && <Caret query={query} position={error.position ?? 0} />}
        {error.nextStep && (
          <p>
            <SafeText text={error.nextStep} limit={400} />
          </p>
        )}
      </div>
    </div>
  );
}

const CARET_CONTEXT = 60;

/** The query with a mark under the character at fault. */
function Caret({ query, position }: { query: string; position: number }): ReactNode {
  const characters = Array.from(query); // the server counts characters, not UTF-16 units
  const start = Math.max(0, position - CARET_CONTEXT);
  const before = characters.slice(start, position).join("");
  const at = characters[position] ?? " ";
  const after = characters.slice(position + 1, position + CARET_CONTEXT).join("");
  return (
    <pre className="caret" aria-label={`at character ${position + 1}`}>
      {start > 0 && "…"}
      <SafeText text={before} />
      <mark>{at.trim() ? <SafeText text={at} /> : "\u00a0"}</mark>
      <SafeText text={after} />
    </pre>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }): ReactNode {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Loading({ what }: { what: string }): ReactNode {
  return (
    <p className="loading" role="status">
      <span className="spinner" aria-hidden="true" /> Loading {what}…
    </p>
  );
}

/** A dialog that keeps the focus until it is closed. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }): ReactNode {
  const element = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const dialog = element.current;
    if (dialog && !dialog.open) dialog.showModal();
  }, []);
  return (
    <dialog
      ref={element}
      className="dialog"
      aria-labelledby={heading}
      onClose={onClose}
      onClick={(event) => event.target === element.current && onClose()}
    >
      <div className="dialog-inside">
        <header className="dialog-head">
          <h2 id={heading}>{title}</h2>
          <Button kind="quiet" icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** A button that opens a panel under it; closed by Esc, by a click elsewhere, or by what is chosen. */
export function Popover(props: {
  open: boolean;
  onOpen: (open: boolean) => void;
  icon?: string;
  text: ReactNode;
  label?: string;
  align?: "left" | "right";
  className?: string;
  children: ReactNode;
}): ReactNode {
  const { open, onOpen, icon, text, label, align = "left", className = "", children } = props;
  const element = useRef<HTMLDivElement>(null);
  const latest = useRef(onOpen);
  latest.current = onOpen;
  useEffect(() => {
    if (!open) return undefined;
    function onPointer(event: PointerEvent): void {
      if (!element.current?.contains(event.target as Node)) latest.current(false);
    }
    document.addEventListener("pointerdown", onPointer);
    return () => document.removeEventListener("pointerdown", onPointer);
  }, [open]);
  function onKey(event: React.KeyboardEvent): void {
    if (event.key !== "Escape" || !open) return;
    event.preventDefault();
    event.nativeEvent.stopPropagation();
    onOpen(false);
    element.current?.querySelector("button")?.focus();
  }
  return (
    <div className={`popover ${className}`} ref={element} onKeyDown={onKey}>
      <Button {...(icon ? { icon } : {})} label={label} expanded={open} onClick={() => onOpen(!open)}>
        {text}
      </Button>
      {open && <div className={`panel ${align}`}>{children}</div>}
    </div>
  );
}
