package chatlab.original.fixed;

import java.util.Map;
import org.springframework.data.redis.connection.stream.MapRecord;

/**
 * A message: its id in the stream, the sender's own id for it, and what it says.
 *
 * <p>The one place that knows a record's fields: what is written is what is read (F6, F11).
 */
public record Message(String id, String clientId, String content) {

  static Message of(MapRecord<String, String, String> record) {
    Map<String, String> fields = record.getValue();
    return new Message(record.getId().getValue(), fields.get("clientId"), fields.get("content"));
  }
}
