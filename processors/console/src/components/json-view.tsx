import type { ReactNode } from "react";
import type { Json } from "../api/types";
import { SafeText } from "./basics";

/** JSON, indented. Every key and value is isolated: none can turn around its neighbours. */
export function JsonView({ value }: { value: Json }): ReactNode {
  return (
    <pre className="json" dir="ltr" tabIndex={0} role="region" aria-label="JSON">
      <Node value={value} indent="" />
    </pre>
  );
}

function Node({ value, indent }: { value: Json; indent: string }): ReactNode {
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return (
      <>
        {"[\n"}
        {value.map((item, at) => (
          <span key={at}>
            {inner}
            <Node value={item} indent={inner} />
            {at < value.length - 1 ? ",\n" : "\n"}
          </span>
        ))}
        {`${indent}]`}
      </>
    );
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    if (entries.length === 0) return "{}";
    return (
      <>
        {"{\n"}
        {entries.map(([name, item], at) => (
          <span key={name}>
            {inner}
            <span className="json-key">
              <SafeText text={JSON.stringify(name)} />
            </span>
            {": "}
            <Node value={item} indent={inner} />
            {at < entries.length - 1 ? ",\n" : "\n"}
          </span>
        ))}
        {`${indent}}`}
      </>
    );
  }
  if (typeof value === "string") {
    return (
      <span className="json-string">
        <SafeText text={JSON.stringify(value)} />
      </span>
    );
  }
  return <span className="json-other">{String(value)}</span>;
}
