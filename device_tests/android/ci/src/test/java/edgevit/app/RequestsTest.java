package edgevit.app;

import static org.junit.Assert.assertNotNull;
import static org.junit.Assume.assumeTrue;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.os.Build;
import java.io.BufferedOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;

/**
 * What device_tests.android asks of the app's preprocessing: requests.json in the folder of system
 * property {@code requests}. The answers are files beside it.
 */
@RunWith(RobolectricTestRunner.class)
public final class RequestsTest {
  private final String folder = System.getProperty("requests", "");

  @Test
  public void answersAll() throws Exception {
    assumeTrue("no requests", !folder.isEmpty());
    String text = new String(bytes("requests.json"), StandardCharsets.UTF_8);
    JSONObject requests = new JSONObject(text);
    JSONArray inputs = requests.getJSONArray("inputs");
    for (int i = 0; i < inputs.length(); i++) {
      JSONObject request = inputs.getJSONObject(i);
      try {
        prepare(request);
      } catch (ContractException error) {
        write(request.getString("answer") + ".error", error.getMessage());
      }
    }
    JSONArray sizes = requests.getJSONArray("sizes");
    for (int i = 0; i < sizes.length(); i++) resize(sizes.getJSONObject(i));
    about();
  }

  private void about() throws Exception {
    JSONObject about =
        new JSONObject()
            .put("java", System.getProperty("java.version"))
            .put("android", Build.VERSION.RELEASE);
    write("about.json", about.toString());
  }

  /** Images, as files, to model inputs: little-endian float32, one after the other. */
  private void prepare(JSONObject request) throws Exception {
    Contract contract =
        Contract.parse(
            new String(bytes(request.getString("contract")), StandardCharsets.UTF_8));
    JSONArray images = request.getJSONArray("images");
    try (OutputStream out = out(request)) {
      for (int i = 0; i < images.length(); i++) {
        Bitmap image = BitmapFactory.decodeFile(images.getString(i));
        assertNotNull(images.getString(i), image);
        float[] input = Preprocessor.apply(image, contract);
        ByteBuffer raw = ByteBuffer.allocate(4 * input.length).order(ByteOrder.LITTLE_ENDIAN);
        raw.asFloatBuffer().put(input);
        out.write(raw.array());
      }
    }
  }

  /** Pixels, RGB bytes, to pixels of another size. */
  private void resize(JSONObject request) throws Exception {
    byte[] rgb = bytes(request.getString("file"));
    int width = request.getInt("width");
    int height = request.getInt("height");
    int[] pixels =
        Resampler.resize(
            (y, row) -> {
              for (int x = 0; x < width; x++) {
                int at = 3 * (y * width + x);
                row[x] = (rgb[at] & 255) << 16 | (rgb[at + 1] & 255) << 8 | rgb[at + 2] & 255;
              }
            },
            width,
            height,
            request.getInt("out_width"),
            request.getInt("out_height"),
            Resampler.Filter.named(request.getString("filter")));
    byte[] answer = new byte[3 * pixels.length];
    for (int i = 0; i < pixels.length; i++) {
      answer[3 * i] = (byte) (pixels[i] >> 16);
      answer[3 * i + 1] = (byte) (pixels[i] >> 8);
      answer[3 * i + 2] = (byte) pixels[i];
    }
    try (OutputStream out = out(request)) {
      out.write(answer);
    }
  }

  private byte[] bytes(String name) throws IOException {
    return Files.readAllBytes(new File(folder, name).toPath());
  }

  private void write(String name, String text) throws IOException {
    Files.write(new File(folder, name).toPath(), text.getBytes(StandardCharsets.UTF_8));
  }

  private OutputStream out(JSONObject request) throws Exception {
    File file = new File(folder, request.getString("answer"));
    return new BufferedOutputStream(Files.newOutputStream(file.toPath()));
  }
}
