import { useEffect, useState, type ReactNode } from "react";
import { exportUrl, get, path, post } from "../api/client";
import type { Detail, ExportState } from "../api/types";
import { count, percent, plural } from "../lib/format";
import { useAct } from "../lib/hooks";
import type { Asked } from "../lib/search-state";
import { Dialog, Failure } from "./basics";

const POLL_MS = 700;

/** Makes an export, lets the browser download it, and shows how far it is. */
export function ExportDialog(props: { question: Asked; columns: string[]; total: number; onClose: () => void }): ReactNode {
  const { question, columns, total, onClose } = props;
  const [format, setFormat] = useState("ndjson");
  const [whole, setWhole] = useState(true);
  const [made, setMade] = useState<ExportState | null>(null);
  const [complete, setComplete] = useState(true);
  const make = useAct(async () => {
    const fields = whole ? {} : { fields: columns };
    const answer = await post<{ id: string; total: number; detail: Detail }>("/exports", { ...question, format, ...fields });
    setMade({ id: answer.id, total: answer.total, state: "ready", done: 0 });
    setComplete(answer.detail.complete);
    download(exportUrl(answer.id), `gatebook-${question.kind}.${format === "csv" ? "csv" : "ndjson"}`);
  });
  useProgress(made, setMade);
  return (
    <Dialog title={`Export ${plural(total, "event")}`} onClose={onClose}>
      <p>All that matches, not only what is on the page. Who exports what is recorded.</p>
      <fieldset className="choices">
        <legend>Format</legend>
        <Choice name="format" text="NDJSON, one document a line" chosen={format === "ndjson"} onChoose={() => setFormat("ndjson")} />
        <Choice name="format" text="CSV, safe to open in a spreadsheet" chosen={format === "csv"} onChoose={() => setFormat("csv")} />
      </fieldset>
      <fieldset className="choices">
        <legend>Fields</legend>
        <Choice name="fields" text={format === "csv" ? "the usual columns" : "whole documents"} chosen={whole} onChoose={() => setWhole(true)} />
        <Choice name="fields" text={`the ${columns.length} columns of the table`} chosen={!whole} onChoose={() => setWhole(false)} />
      </fieldset>
      <button type="button" className="button primary" disabled={make.busy || total === 0} onClick={make.run}>
        {make.busy ? "Preparing…" : made ? "Export again" : "Export"}
      </button>
      {make.error && <Failure error={make.error} />}
      {!complete && <p className="none">Retention removed some details of this range: they are not in the export.</p>}
      {made && (
        <div className="export-progress" role="status">
          <progress max={Math.max(1, made.total)} value={made.done} aria-label="Export" />
          {made.state === "done" ? `Done: ${plural(made.done, "line")}.` : `${count(made.done)} of ${count(made.total)} (${percent(made.done, made.total)})`}{" "}
          <a href={exportUrl(made.id)} download>
            Download again
          </a>
        </div>
      )}
    </Dialog>
  );
}

function Choice(props: { name: string; text: string; chosen: boolean; onChoose: () => void }): ReactNode {
  return (
    <label>
      <input type="radio" name={props.name} checked={props.chosen} onChange={props.onChoose} /> {props.text}
    </label>
  );
}

/** The browser streams it to disk; the page never holds it. */
function download(url: string, name: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}

function useProgress(made: ExportState | null, onState: (state: ExportState) => void): void {
  useEffect(() => {
    if (!made || made.state === "done") return undefined;
    const timer = window.setTimeout(() => {
      get<ExportState>(path`/exports/${made.id}`).then(onState, () => onState({ ...made }));
    }, POLL_MS);
    return () => window.clearTimeout(timer);
  }, [made]);
}
