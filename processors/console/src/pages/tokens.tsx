import type { ReactNode } from "react";
export function TokensPage(): ReactNode { return <h1>Tokens</h1>; }
