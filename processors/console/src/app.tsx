import { Component, useEffect, useState, type ReactNode } from "react";
import { get, setCsrfToken, signOut, SIGNED_OUT } from "./api/client";
import type { Session } from "./api/types";
import { Button, Dialog, Empty, Failure, Icon, Link, Loading, Popover, SafeText } from "./components/basics";
import { useAct, useKeys, useRequest } from "./lib/hooks";
import { setPreferences, usePreferences, type Theme } from "./lib/preferences";
import { navigate, useLocation } from "./lib/router";
import { may, SessionContext } from "./lib/session";
import { zoneName } from "./lib/time";
import { EventPage } from "./pages/event";
import { FindingPage, FindingsPage } from "./pages/findings";
import { OverviewPage } from "./pages/overview";
import { RetentionPage } from "./pages/retention";
import { SearchPage } from "./pages/search";
import { TokensPage } from "./pages/tokens";

export function App(): ReactNode {
  const answer = useRequest("session", (signal) => get<Session>("/session", signal));
  const [signedOut, setSignedOut] = useState(false);
  useEffect(() => {
    document.addEventListener("click", followLink);
    const onSignedOut = (): void => setSignedOut(true);
    window.addEventListener(SIGNED_OUT, onSignedOut);
    return () => {
      document.removeEventListener("click", followLink);
      window.removeEventListener(SIGNED_OUT, onSignedOut);
    };
  }, []);
  if (signedOut) return <SignIn />;
  if (answer.data) {
    setCsrfToken(answer.data.csrf_token);
    return (
      <SessionContext value={answer.data}>
        <Shell session={answer.data} />
      </SessionContext>
    );
  }
  return (
    <main className="lone">
      <h1>Gatebook</h1>
      {answer.error ? (
        <>
          <Failure error={answer.error} />
          <Button icon="refresh" onClick={() => window.location.reload()}>
            Try again
          </Button>
        </>
      ) : (
        <Loading what="the console" />
      )}
    </main>
  );
}

/** Links within the console change the page without loading it anew. */
function followLink(event: MouseEvent): void {
  const link = (event.target as Element).closest?.("a[data-link]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  navigate(link.getAttribute("href") ?? "/");
  window.scrollTo(0, 0);
}

function SignIn(): ReactNode {
  const next = encodeURIComponent(window.location.pathname + window.location.search);
  return (
    <main className="lone">
      <h1>
        <Icon name="gate" /> Gatebook
      </h1>
      <p>Audit-ready access logs. Sign in to search them. Every look is itself recorded.</p>
      <a className="button primary" href={`/login?return=${next}`}>
        Sign in
      </a>
      <p className="none">
        The next page takes an API token (<code>gatebook token new</code> makes one), or your organisation's sign-in where it is set up. The one-time link that{" "}
        <code>gatebook serve</code> printed when it started signs in without it, once.
      </p>
    </main>
  );
}

interface Page {
  path: string;
  name: string;
  permission: string;
}

const PAGES: Page[] = [
  { path: "/search", name: "Search", permission: "search" },
  { path: "/findings", name: "Findings", permission: "search" },
  { path: "/overview", name: "Overview", permission: "overview" },
  { path: "/retention", name: "Retention", permission: "retention_read" },
  { path: "/tokens", name: "Tokens", permission: "tokens" },
];

function Shell({ session }: { session: Session }): ReactNode {
  const { path } = useLocation();
  const { shortcuts } = usePreferences();
  const [help, setHelp] = useState(false);
  const pages = PAGES.filter((page) => may(session, page.permission));
  const here = pageAt(path);
  useKeys({ "?": () => setHelp(true) }, shortcuts);
  useEffect(() => {
    if (path === "/") navigate(pages[0]?.path ?? "/overview", { replace: true });
    const name = { event: "Event", finding: "Finding" }[path.split("/")[1] ?? ""] ?? here?.name;
    document.title = name ? `${name} · Gatebook` : "Gatebook";
  }, [path]);
  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <header className="top">
        <Link to="/search" className="brand">
          <Icon name="gate" />
          <span>Gatebook</span>
        </Link>
        <nav aria-label="Pages">
          {pages.map((page) => (
            <a key={page.path} href={page.path} data-link="" aria-current={page === here ? "page" : undefined}>
              {page.name}
            </a>
          ))}
        </nav>
        <span className="spacer" />
        <ZoneToggle />
        <ThemeToggle />
        <Button kind="quiet" label="Keyboard and query help (?)" onClick={() => setHelp(true)}>
          ?
        </Button>
        <Account session={session} />
      </header>
      <main id="main" tabIndex={-1}>
        <Guard key={path}>{pageOf(path, session)}</Guard>
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </>
  );
}

/** The page of the menu that an address belongs to: one finding is of the findings. */
function pageAt(path: string): Page | undefined {
  const first = path.split("/")[1] ?? "";
  return PAGES.find((page) => page.path === `/${{ finding: "findings", event: "search" }[first] ?? first}`);
}

function pageOf(path: string, session: Session): ReactNode {
  const [, first = "", second = ""] = path.split("/");
  const id = safelyDecoded(second);
  const page = PAGES.find((candidate) => candidate.path === `/${first}`);
  const permission = page?.permission ?? "search";
  if (!may(session, permission)) return <Empty title="Your roles do not show this page." />;
  if (first === "search") return <SearchPage />;
  if (first === "event" && id) return <EventPage id={id} />;
  if (first === "findings") return <FindingsPage />;
  if (first === "finding" && id) return <FindingPage incident={id} />;
  if (first === "overview") return <OverviewPage />;
  if (first === "retention") return <RetentionPage />;
  if (first === "tokens") return <TokensPage />;
  return first === "" ? null : <Empty title="There is no such page." />;
}

function safelyDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** A page that fails to draw leaves the others usable. */
class Guard extends Component<{ children: ReactNode }, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <Empty title="This page could not be drawn.">
        <Button icon="refresh" onClick={() => window.location.reload()}>
          Load it again
        </Button>
      </Empty>
    );
  }
}

function ZoneToggle(): ReactNode {
  const { zone } = usePreferences();
  const other = zone === "utc" ? "local" : "utc";
  return (
    <Button kind="quiet" label={`Times are in ${zoneName(zone)}${zone === "local" ? ", your zone" : ""}. Show ${other === "utc" ? "UTC" : "local time"}`} onClick={() => setPreferences({ zone: other })}>
      {zone === "utc" ? "UTC" : "Local"}
    </Button>
  );
}

const THEMES: Theme[] = ["system", "light", "dark"];
const THEME_ICONS: Record<Theme, string> = { system: "system", light: "sun", dark: "moon" };

function ThemeToggle(): ReactNode {
  const { theme } = usePreferences();
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
  return <Button kind="quiet" icon={THEME_ICONS[theme]} label={`Theme: ${theme}. Change to ${next}`} onClick={() => setPreferences({ theme: next })} />;
}

function Account({ session }: { session: Session }): ReactNode {
  const [open, setOpen] = useState(false);
  const { caller } = session;
  const out = useAct(async () => {
    await signOut();
    window.location.assign("/");
  });
  return (
    <Popover open={open} onOpen={setOpen} align="right" className="account" text={<SafeText text={caller.name || caller.id} limit={24} />}>
      <dl className="pairs">
        <div>
          <dt>Signed in as</dt>
          <dd>
            <SafeText text={caller.id} limit={80} />
          </dd>
        </div>
        <div>
          <dt>By</dt>
          <dd>{caller.method.replaceAll("_", " ")}</dd>
        </div>
        <div>
          <dt>Roles</dt>
          <dd>{caller.roles.join(", ").replaceAll("_", " ")}</dd>
        </div>
        <div>
          <dt>Tenants</dt>
          <dd>{caller.tenants === null ? "all" : <SafeText text={caller.tenants.join(", ") || "none"} limit={200} />}</dd>
        </div>
        <div>
          <dt>Namespace</dt>
          <dd>{session.namespace}</dd>
        </div>
        <div>
          <dt>Version</dt>
          <dd>{session.version}</dd>
        </div>
      </dl>
      <Button onClick={out.run}>Sign out</Button>
      {out.error && <Failure error={out.error} />}
    </Popover>
  );
}

const KEYS: [string, string][] = [
  ["/", "to the query"],
  ["j  k", "next and previous row"],
  ["Enter", "open the row"],
  ["Esc", "close what is open"],
  ["← →", "move in the histogram; with Shift choose a range, Enter zooms"],
  ["?", "this help"],
];

const EXAMPLES: [string, string][] = [
  ["service.name:support and event.outcome:failure", "a field has a value; and, or, not, ( )"],
  ['gatebook.principal:"key:key_4f1c"', "quoted: as it is; a caller known by a key, here"],
  ["url.path:/v1/*", "* stands for any characters"],
  ["http.response.status_code >= 500", "> >= < <="],
  ["event.action:(chat or embeddings)", "several values"],
  ["error.type:*", "the field is there"],
  ["password reset", "words in content and reasons"],
];

function Help({ onClose }: { onClose: () => void }): ReactNode {
  const { shortcuts } = usePreferences();
  return (
    <Dialog title="Help" onClose={onClose}>
      <h3 className="small-title">Keyboard</h3>
      <dl className="pairs keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label className="switch">
        <input type="checkbox" checked={shortcuts} onChange={(event) => setPreferences({ shortcuts: event.target.checked })} /> Single-key shortcuts
      </label>
      <h3 className="small-title">Queries</h3>
      <dl className="pairs examples">
        {EXAMPLES.map(([query, what]) => (
          <div key={query}>
            <dt>
              <code>{query}</code>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
