/** The table of documents. The button in a row's first cell opens it; j and k move between them. */
import { useEffect, useRef, useState, type ReactNode } from "react";
import type { Hit } from "../api/types";
import { cellAt } from "../lib/documents";
import { fieldName, TIME } from "../lib/kinds";
import type { FieldIndex } from "../lib/session";
import { zoneName, type Zone } from "../lib/time";
import { Icon } from "./basics";
import { Value } from "./value";

const CELL_CHARACTERS = 120;

/** A row between documents that is none. */
export interface Note {
  note: string;
  text: ReactNode;
}

export function Results(props: {
  hits: (Hit | Note)[];
  columns: string[];
  fields: FieldIndex;
  zone: Zone;
  sort: string;
  onSort: ((sort: string) => void) | null;
  selected: string | null;
  onOpen: (hit: Hit) => void;
  stale: boolean;
  label: string;
}): ReactNode {
  const { hits, columns, stale, label } = props;
  const [box, beyond] = useBeyond(columns.join(), hits);
  return (
    <>
      <div ref={box} className={`table-scroll ${stale ? "stale" : ""} ${beyond ? "beyond" : ""}`} role="region" aria-label={label} tabIndex={0}>
        <table className="results">
          <thead>
            <tr>
              {columns.map((name) => (
                <Heading key={name} name={name} {...props} />
              ))}
            </tr>
          </thead>
          <tbody>
            {hits.map((hit) =>
              "note" in hit ? (
                <tr key={hit.note} className="note">
                  <td colSpan={columns.length}>{hit.text}</td>
                </tr>
              ) : (
                <Row key={`${hit.index}/${hit.id}`} hit={hit} {...props} />
              ),
            )}
          </tbody>
        </table>
      </div>
      {beyond && (
        <p className="beyond-note">
          <button type="button" className="link" onClick={() => box.current?.scrollBy({ left: box.current.clientWidth / 2 })}>
            More columns to the right →
          </button>
        </p>
      )}
    </>
  );
}

function Row(props: { hit: Hit; columns: string[]; fields: FieldIndex; zone: Zone; selected: string | null; onOpen: (hit: Hit) => void }): ReactNode {
  const { hit, columns, fields, zone, selected, onOpen } = props;
  return (
    <tr data-id={hit.id} className={selected === hit.id ? "selected" : ""} onClick={() => onOpen(hit)}>
      {columns.map((name, at) => (
        <td key={name} className={fields.get(name)?.type === "long" || fields.get(name)?.type === "double" ? "numeric" : ""}>
          {at === 0 ? (
            <button
              type="button"
              className="row-open"
              data-row={hit.id}
              aria-current={selected === hit.id}
              onClick={(event) => {
                event.stopPropagation();
                onOpen(hit);
              }}
            >
              <Value field={name} value={cellAt(hit.source, name)} zone={zone} limit={CELL_CHARACTERS} />
            </button>
          ) : (
            <Value field={name} value={cellAt(hit.source, name)} zone={zone} limit={CELL_CHARACTERS} />
          )}
        </td>
      ))}
    </tr>
  );
}

/** Whether columns are out of sight to the right of where the table is scrolled to. */
function useBeyond(columns: string, hits: (Hit | Note)[]): [React.RefObject<HTMLDivElement | null>, boolean] {
  const box = useRef<HTMLDivElement>(null);
  const [beyond, setBeyond] = useState(false);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const look = (): void => setBeyond(element.scrollLeft + element.clientWidth < element.scrollWidth - 2);
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, [columns, hits]);
  return [box, beyond];
}

function Heading(props: { name: string; fields: FieldIndex; zone: Zone; sort: string; onSort: ((sort: string) => void) | null }): ReactNode {
  const { name, fields, zone, sort, onSort } = props;
  const [by, direction] = sort.split(":");
  const sorted = by === name ? (direction === "asc" ? "ascending" : "descending") : undefined;
  const field = fields.get(name);
  const numeric = field?.type === "long" || field?.type === "double";
  const text = (
    <>
      {fieldName(name)}
      {name === TIME && <span className="zone"> {zoneName(zone)}</span>}
    </>
  );
  return (
    <th scope="col" aria-sort={sorted} className={numeric ? "numeric" : ""} title={name === "user.id" ? "user.id; gatebook.principal where there is none" : name}>
      {onSort && field?.sortable && !field.masked ? (
        <button
          type="button"
          className={`sorter ${sorted ?? ""}`}
          onClick={() => onSort(`${name}:${sorted === "descending" ? "asc" : "desc"}`)}
        >
          {text}
          <Icon name="down" />
        </button>
      ) : (
        text
      )}
    </th>
  );
}
