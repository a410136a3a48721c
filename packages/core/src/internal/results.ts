/** Results of handlers as text for the store, and back. */
import { Cause, Effect, Exit, Schema } from "effect"
import { InvalidInput } from "../Errors.ts"
import { format, type Key } from "../Key.ts"

/** The value as text, or why it can't be; the handler has run, so that the key is marked all the same. */
export const encode = <A>(
  schema: Schema.Codec<A, unknown>,
  value: A
): { readonly text?: string; readonly error?: InvalidInput } => {
  const exit = Effect.runSyncExit(Schema.encodeEffect(Schema.toCodecJson(schema))(value))
  if (Exit.isSuccess(exit)) return { text: JSON.stringify(exit.value ?? null) }
  return {
    error: new InvalidInput({
      field: "result",
      value: Cause.pretty(exit.cause).split("\n", 1)[0],
      allowed:
        "a value that the schema given as result can encode; the key is marked completed, without a result"
    })
  }
}

/** The value that a stored text stands for. */
export const decode = <A>(
  schema: Schema.Codec<A, unknown>,
  key: Key,
  text: string
): Effect.Effect<A, InvalidInput> =>
  Effect.mapError(
    Effect.flatMap(
      Effect.try({ try: () => JSON.parse(text) as unknown, catch: (cause) => cause }),
      Schema.decodeUnknownEffect(Schema.toCodecJson(schema))
    ),
    (cause) =>
      new InvalidInput({
        field: `stored result of ${format(key)}`,
        value: String(cause).split("\n", 1)[0],
        allowed: "what the schema given as result can decode; was it stored by another version?"
      })
  )
