package chatlab.original.fixed;

import java.util.List;
import java.util.Map;
import org.springframework.context.annotation.Profile;
import org.springframework.data.domain.Range;
import org.springframework.data.redis.connection.Limit;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.core.StringRedisTemplate;
import org.springframework.data.redis.core.script.RedisScript;
import org.springframework.stereotype.Component;

/** The stream, through a StringRedisTemplate: strings for keys, fields and values (F11), one form for all (F6). */
@Component
@Profile("fixed")
class ChatStream {

  static final String NAME = "chat-stream";

  /** Stores a message once, however often it is sent (F10), and trims the stream (F5). */
  private static final RedisScript<String> ADD =
      RedisScript.of(
          """
          local id = redis.call('GET', KEYS[2])
          if id then return id end
          id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 10000, '*', 'client_id', ARGV[1], 'content', ARGV[2])
          redis.call('SET', KEYS[2], id, 'EX', 600)
          return id
          """,
          String.class);

  private final StringRedisTemplate redis;

  ChatStream(StringRedisTemplate redis) {
    this.redis = redis;
  }

  String add(Message message) {
    List<String> keys = List.of(NAME, "{" + NAME + "}:once:" + message.clientId());
    return redis.execute(ADD, keys, message.clientId(), message.content());
  }

  /** Return what was stored after a record. */
  List<Message> after(String id) {
    Range<String> later = Range.rightUnbounded(Range.Bound.exclusive(id));
    return redis.<String, String>opsForStream().range(NAME, later).stream()
        .map(ChatStream::message)
        .filter(message -> message.content() != null) // F18
        .toList();
  }

  /** Return the id of the newest record. */
  String newest() {
    var last = redis.<String, String>opsForStream().reverseRange(NAME, Range.unbounded(), Limit.limit().count(1));
    return last == null || last.isEmpty() ? "0-0" : last.get(0).getId().getValue();
  }

  static Message message(MapRecord<String, String, String> record) {
    Map<String, String> fields = record.getValue();
    return new Message(record.getId().getValue(), fields.get("client_id"), fields.get("content"));
  }
}
