import type { ReactNode } from "react";
export function FindingsPage(): ReactNode { return <h1>Findings</h1>; }
export function FindingPage(_: { incident: string }): ReactNode { return null; }
