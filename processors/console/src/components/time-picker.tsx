import { useState, type ReactNode } from "react";
import { absolute, formatInstant, fromInput, isRelative, lastName, lengthSeconds, PRESETS, toInput, zoneName } from "../lib/time";
import type { Range, Zone } from "../lib/time";
import { serverNow } from "../api/client";
import { Button, Popover } from "./basics";

export function TimePicker(props: { range: Range; zone: Zone; onChange: (range: Range) => void }): ReactNode {
  const { range, zone, onChange } = props;
  const [open, setOpen] = useState(false);
  const text = isRelative(range)
    ? lastName(range.last)
    : `${formatInstant(range.from, zone, 0)} – ${formatInstant(range.to, zone, 0)}`;
  const choose = (chosen: Range): void => {
    setOpen(false);
    onChange(chosen);
  };
  return (
    <Popover open={open} onOpen={setOpen} icon="clock" text={text} label={`Time range: ${text}`} align="right" className="time-picker">
      <fieldset>
        <legend>Up to now</legend>
        <div className="presets">
          {PRESETS.map((last) => (
            <button
              type="button"
              key={last}
              className="preset"
              aria-pressed={isRelative(range) && range.last === last}
              onClick={() => choose({ last })}
            >
              {lastName(last)}
            </button>
          ))}
        </div>
        <LastForm onChoose={choose} />
      </fieldset>
      <AbsoluteForm range={range} zone={zone} onChoose={choose} />
    </Popover>
  );
}

function LastForm({ onChoose }: { onChoose: (range: Range) => void }): ReactNode {
  const [amount, setAmount] = useState("2");
  const [unit, setUnit] = useState("h");
  const last = `${amount}${unit}`;
  return (
    <form
      className="inline-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (lengthSeconds(last) !== null) onChoose({ last });
      }}
    >
      <label>
        Last
        <input type="number" min="1" max="99999" value={amount} onChange={(event) => setAmount(event.target.value)} />
      </label>
      <select aria-label="Unit" value={unit} onChange={(event) => setUnit(event.target.value)}>
        <option value="m">minutes</option>
        <option value="h">hours</option>
        <option value="d">days</option>
        <option value="w">weeks</option>
      </select>
      <button type="submit" className="button plain">
        Apply
      </button>
    </form>
  );
}

function AbsoluteForm(props: { range: Range; zone: Zone; onChoose: (range: Range) => void }): ReactNode {
  const now = absolute(props.range, serverNow());
  const [from, setFrom] = useState(toInput(now.from, props.zone));
  const [to, setTo] = useState(toInput(now.to, props.zone));
  const [wrong, setWrong] = useState("");
  function submit(event: React.FormEvent): void {
    event.preventDefault();
    const chosen = { from: fromInput(from, props.zone), to: fromInput(to, props.zone) };
    if (!chosen.from || !chosen.to) return setWrong("Write both as 2026-11-23 10:15:00, or as a day alone.");
    if (chosen.from >= chosen.to) return setWrong("The end must be later than the start.");
    props.onChoose({ from: chosen.from, to: chosen.to });
  }
  return (
    <form onSubmit={submit} noValidate>
      <fieldset>
        <legend>From and to, {zoneName(props.zone)}</legend>
        <label className="stacked">
          From
          <input className="instant" spellCheck={false} placeholder="2026-11-23 10:15:00" value={from} onChange={(event) => setFrom(event.target.value)} />
        </label>
        <label className="stacked">
          To, not included
          <input className="instant" spellCheck={false} placeholder="2026-11-23 10:15:00" value={to} onChange={(event) => setTo(event.target.value)} />
        </label>
        {wrong && (
          <p className="wrong" role="alert">
            {wrong}
          </p>
        )}
        <button type="submit" className="button primary">
          Apply
        </button>
      </fieldset>
    </form>
  );
}

/** Steps out: the same middle, three times as long. */
export function ZoomOut({ range, onChange }: { range: Range; onChange: (range: Range) => void }): ReactNode {
  function widen(): void {
    const { from, to } = absolute(range, serverNow());
    const [start, end] = [Date.parse(from), Date.parse(to)];
    const length = end - start;
    onChange({ from: new Date(start - length).toISOString(), to: new Date(end + length).toISOString() });
  }
  return <Button kind="quiet" icon="zoomOut" label="Zoom out in time" onClick={widen} />;
}
