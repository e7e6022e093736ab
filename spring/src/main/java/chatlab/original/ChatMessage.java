package chatlab.original;

/** What a client sends and is sent: the article names the class, and its one field. */
public class ChatMessage {

  private String content;

  public ChatMessage() {}

  public ChatMessage(String content) {
    this.content = content;
  }

  public String getContent() {
    return content;
  }

  public void setContent(String content) {
    this.content = content;
  }
}
