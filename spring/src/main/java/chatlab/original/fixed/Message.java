package chatlab.original.fixed;

import com.fasterxml.jackson.annotation.JsonProperty;

/** A message with the two names that make it count once: the sender's id for it, and the stream's. */
record Message(String id, @JsonProperty("client_id") String clientId, String content) {}
