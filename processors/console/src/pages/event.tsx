import type { ReactNode } from "react";
import { EventView } from "../components/flyout";
import { SafeText } from "../components/basics";
import { usePreferences } from "../lib/preferences";

export function EventPage({ id }: { id: string }): ReactNode {
  const { zone } = usePreferences();
  return (
    <div className="page narrow">
      <h1>
        Event <SafeText text={id} limit={60} />
      </h1>
      <section className="card event-page">
        <EventView key={id} id={id} hit={null} zone={zone} fields={new Map()} columns={[]} onFilter={null} onColumns={null} />
      </section>
    </div>
  );
}
