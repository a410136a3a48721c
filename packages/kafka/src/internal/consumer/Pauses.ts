/** What people have paused. It outlives assignments: who gets a partition back finds it as they left it. */
import type { TopicPartition } from "../../KafkaClient.ts"
import { fail } from "../optionChecks.ts"

/** A partition, or all partitions of a topic. */
export interface Place {
  readonly topic: string
  readonly partition?: number | undefined
}

const keyOf = ({ partition, topic }: Place): string => `${partition}/${topic}`

/** Of what was said of all, of a topic and of a partition, the narrower counts, and a wider word undoes it. */
export class Pauses {
  private all = false
  private readonly topics = new Map<string, boolean>()
  private readonly partitions = new Map<string, { readonly topic: string; readonly paused: boolean }>()

  /** @param places - `undefined`: all, also what comes later. */
  set(places: ReadonlyArray<Place> | undefined, paused: boolean): void {
    if (places === undefined) {
      this.all = paused
      this.topics.clear()
      this.partitions.clear()
    } else for (const place of places) this.setPlace(place, paused)
  }

  private setPlace(place: Place, paused: boolean): void {
    const { partition, topic } = place
    if (partition !== undefined) {
      this.partitions.set(keyOf(place), { topic, paused })
      return
    }
    this.topics.set(topic, paused)
    for (const [key, other] of this.partitions) if (other.topic === topic) this.partitions.delete(key)
  }

  has(partition: TopicPartition): boolean {
    return this.partitions.get(keyOf(partition))?.paused ?? this.topics.get(partition.topic) ?? this.all
  }
}

const allowed = "a topic of this consumer, with a partition (an integer from 0) or without"

/** @throws InvalidInput naming the first place that can't be one of this consumer's. */
export const checkPlaces = (
  topics: ReadonlyArray<string>,
  places: ReadonlyArray<Place> | undefined
): void => {
  if (places === undefined) return
  if (!Array.isArray(places)) fail("places", places, "an array")
  for (const { partition, topic } of places) {
    if (!topics.includes(topic)) fail("topic", topic, allowed)
    if (partition !== undefined && !(Number.isSafeInteger(partition) && partition >= 0))
      fail(`partition of topic "${topic}"`, partition, allowed)
  }
}
