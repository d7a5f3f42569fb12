import type { ReactNode } from "react";
export function RetentionPage(): ReactNode { return <h1>Retention</h1>; }
