/** The side panel: values of fields with their counts, and all fields to choose columns from. */
import { useState, type ReactNode } from "react";
import type { ApiError } from "../api/client";
import type { Facet, FacetsAnswer, FacetValue } from "../api/types";
import { count, percent } from "../lib/format";
import { shown } from "../lib/hostile";
import { fieldName } from "../lib/kinds";
import { filterValue, type Filter } from "../lib/query";
import type { FieldIndex } from "../lib/session";
import { Button, Failure, Icon, SafeText } from "./basics";

export function Facets(props: {
  answer: FacetsAnswer | null;
  names: string[];
  error: ApiError | null;
  loading: boolean;
  onFilter: (filter: Filter) => void;
}): ReactNode {
  const { answer, names, error, loading, onFilter } = props;
  if (error) return <Failure error={error} />;
  return (
    <div className={`facets ${loading ? "stale" : ""}`} aria-busy={loading}>
      {names.map((name) => {
        const facet = answer?.facets[name];
        const isPart = facet?.source === "details" && answer?.source !== "details";
        return <FacetBlock key={name} name={name} facet={facet} isPart={isPart} total={answer?.total ?? 0} onFilter={onFilter} />;
      })}
    </div>
  );
}

const SHOWN_VALUES = 5;

function FacetBlock(props: { name: string; facet: Facet | undefined; isPart: boolean; total: number; onFilter: (filter: Filter) => void }): ReactNode {
  const { name, facet, isPart, total, onFilter } = props;
  const [all, setAll] = useState(false);
  if (!facet || (facet.values.length === 0 && facet.missing === 0)) return null;
  if (facet.values.length === 0) return null;
  const values = all ? facet.values : facet.values.slice(0, SHOWN_VALUES);
  const rest = facet.values.length - values.length;
  return (
    <details className="facet" open>
      <summary>
        <span className="facet-name" title={name}>
          {fieldName(name)}
        </span>
        <span className="facet-distinct">{count(facet.distinct)}</span>
      </summary>
      <ul>
        {values.map((entry) => (
          <FacetRow key={JSON.stringify(entry.value)} name={name} entry={entry} total={total} onFilter={onFilter} />
        ))}
        {facet.missing > 0 && (
          <FacetRow name={name} entry={{ value: null, count: facet.missing }} total={total} onFilter={onFilter} />
        )}
      </ul>
      {(rest > 0 || all) && facet.values.length > SHOWN_VALUES && (
        <button type="button" className="more" onClick={() => setAll(!all)}>
          {all ? "fewer" : `${count(rest)} more`}
        </button>
      )}
      {isPart && <p className="facet-other">of the details that are there</p>}
      {facet.other > 0 && all && <p className="facet-other">{count(facet.other)} in other values</p>}
    </details>
  );
}

function FacetRow(props: { name: string; entry: FacetValue; total: number; onFilter: (filter: Filter) => void }): ReactNode {
  const { name, entry, total, onFilter } = props;
  const value = filterValue(entry.value);
  const label = value === null ? "none" : shown(value, 60);
  return (
    <li className="facet-row">
      <progress className="facet-bar" max={Math.max(1, total)} value={entry.count} aria-hidden="true" />
      <span className="facet-value">{value === null ? <em>none</em> : <SafeText text={value} limit={80} />}</span>
      <span className="facet-count" title={percent(entry.count, total)}>
        {count(entry.count)}
      </span>
      <span className="facet-acts">
        <Button kind="quiet" icon="plus" label={`Only ${fieldName(name)}: ${label}`} onClick={() => onFilter({ field: name, value, exclude: false })} />
        <Button kind="quiet" icon="minus" label={`Without ${fieldName(name)}: ${label}`} onClick={() => onFilter({ field: name, value, exclude: true })} />
      </span>
    </li>
  );
}

/** All fields of the kind; a check box each. */
export function FieldList(props: { fields: FieldIndex; columns: string[]; onColumns: (columns: string[]) => void }): ReactNode {
  const { fields, columns, onColumns } = props;
  const [wanted, setWanted] = useState("");
  const names = [...fields.keys()].filter((name) => name.includes(wanted.trim().toLowerCase()));
  const toggle = (name: string): void =>
    onColumns(columns.includes(name) ? columns.filter((column) => column !== name) : [...columns, name]);
  return (
    <div className="field-list">
      <label className="stacked">
        Find a field
        <input type="search" value={wanted} onChange={(event) => setWanted(event.target.value)} />
      </label>
      <ul tabIndex={0} aria-label="Fields">
        {names.map((name) => (
          <li key={name}>
            <label>
              <input type="checkbox" checked={columns.includes(name)} onChange={() => toggle(name)} />
              <span>{name}</span>
              {fields.get(name)?.masked && <Icon name="lock" />}
            </label>
          </li>
        ))}
        {names.length === 0 && <li className="none">No field has this in its name.</li>}
      </ul>
    </div>
  );
}

export function Chips({ filters, onChange }: { filters: Filter[]; onChange: (filters: Filter[]) => void }): ReactNode {
  if (filters.length === 0) return null;
  const replace = (at: number, changed: Filter | null): void =>
    onChange(filters.flatMap((filter, index) => (index !== at ? [filter] : changed ? [changed] : [])));
  return (
    <ul className="chips" aria-label="Filters">
      {filters.map((filter, at) => (
        <li key={`${filter.field}=${filter.value ?? ""}`} className={filter.exclude ? "chip exclude" : "chip"}>
          <button
            type="button"
            className="chip-text"
            title={filter.exclude ? "Excluded: click to include" : "Included: click to exclude"}
            onClick={() => replace(at, { ...filter, exclude: !filter.exclude })}
          >
            {filter.exclude && <strong>not </strong>}
            {filter.field}: {filter.value === null ? <em>none</em> : <SafeText text={filter.value} limit={60} />}
          </button>
          <button
            type="button"
            className="chip-close"
            aria-label={`Remove filter ${filter.field}: ${shown(filter.value ?? "none", 60)}`}
            onClick={() => replace(at, null)}
          >
            <Icon name="close" />
          </button>
        </li>
      ))}
      <li>
        <button type="button" className="more" onClick={() => onChange([])}>
          Clear all
        </button>
      </li>
    </ul>
  );
}
