/**
 * kafkajs 2.2.4 asks who coordinates a transaction, or a group, before each request to it: four of the nine requests that
 * a transaction takes. Its producer keeps what it needs to remember that to itself, so this reaches for it; where a
 * kafkajs is otherwise inside, it asks as it always does.
 */
import type { Kafka, Producer } from "kafkajs"

/** The part of kafkajs's own `Cluster` that is used here. */
interface Cluster {
  findGroupCoordinatorMetadata: (question: {
    readonly groupId: string
    readonly coordinatorType?: number
  }) => Promise<unknown>
}

type CreateCluster = (options: unknown) => Cluster

const isCluster = (candidate: unknown): candidate is Cluster =>
  typeof (candidate as Partial<Cluster> | undefined)?.findGroupCoordinatorMetadata === "function"

/** Makes a producer, and gives its cluster along where it can be had. */
export const makeProducerWithCluster = (
  kafka: Kafka,
  make: () => Producer
): { readonly producer: Producer; readonly cluster: Cluster | undefined } => {
  const inside = kafka as unknown as Record<symbol, CreateCluster | undefined>
  const symbol = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === "private:Kafka:createCluster"
  )
  const createCluster = symbol === undefined ? undefined : inside[symbol]
  if (symbol === undefined || typeof createCluster !== "function")
    return { producer: make(), cluster: undefined }
  let cluster: unknown
  inside[symbol] = (options) => {
    const made = createCluster(options)
    cluster = made
    return made
  }
  try {
    const producer = make()
    return { producer, cluster: isCluster(cluster) ? cluster : undefined }
  } finally {
    inside[symbol] = createCluster
  }
}

/**
 * From now on asks once for each coordinator. One that has moved refuses the next request: so only for a producer that is
 * given up with its first failure.
 */
export const rememberCoordinators = (cluster: Cluster): void => {
  const ask = cluster.findGroupCoordinatorMetadata.bind(cluster)
  const known = new Map<string, Promise<unknown>>()
  cluster.findGroupCoordinatorMetadata = (question) => {
    const key = `${question.coordinatorType ?? ""}/${question.groupId}`
    let answer = known.get(key)
    if (answer === undefined) {
      answer = ask(question)
      known.set(key, answer)
      answer.catch(() => known.delete(key))
    }
    return answer
  }
}
