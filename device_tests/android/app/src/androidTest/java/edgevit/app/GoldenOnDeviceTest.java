package edgevit.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import android.content.Context;
import android.content.res.AssetManager;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.os.SystemClock;
import androidx.test.platform.app.InstrumentationRegistry;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.junit.Test;

/**
 * The released model on this device, on the golden inputs and on the golden images themselves.
 *
 * <p>Writes results.json for {@code device_tests.phone}, whether or not the answers agree: into the
 * folder that the Android plugin collects, or the app's external files.
 */
public final class GoldenOnDeviceTest {
  private static final String RESULTS = "edge-vit-results.json";
  private static final int RUNS = 10; // timed
  // Kernels differ between processors by rounding, which quantization amplifies. A wrong crop,
  // filter, colour order or normalisation costs far more.
  private static final double MIN_SQNR_DB = 25;

  private final Context app = InstrumentationRegistry.getInstrumentation().getTargetContext();
  private final AssetManager golden =
      InstrumentationRegistry.getInstrumentation().getContext().getAssets();

  @Test
  public void answersAgreeWithTheGoldenOnes() throws Exception {
    JSONObject results = new JSONObject();
    try {
      run(results);
    } catch (Exception | LinkageError error) {
      results.put("error", String.valueOf(error.getMessage()));
      throw error;
    } finally {
      write(results);
    }
    assertTrue(results.toString(), results.getDouble("sqnr_db") >= MIN_SQNR_DB);
    assertTrue(results.toString(), results.getDouble("own_sqnr_db") >= MIN_SQNR_DB);
  }

  private void run(JSONObject results) throws IOException, JSONException, ContractException {
    results.put("loads", false).put("runs", false);
    File file =
        Release.model(
            name -> app.getAssets().open(MainActivity.RELEASE + name), app.getFilesDir());
    results.put("sha256", Release.sha256(file));
    long start = SystemClock.elapsedRealtimeNanos();
    Model model = new Classifier(file);
    results.put("load_ms", since(start)).put("loads", true);
    model.setThreads(1);

    JSONObject content = new JSONObject(new String(read("golden.json"), StandardCharsets.UTF_8));
    JSONObject answers = content.getJSONObject("artefacts").getJSONObject("ptl");
    assertEquals("golden.json is of another model", answers.getString("sha256"),
        results.getString("sha256"));
    JSONArray images = content.getJSONArray("images");
    ByteBuffer inputs =
        ByteBuffer.wrap(read(content.getJSONObject("inputs").getString("file")))
            .order(ByteOrder.LITTLE_ENDIAN);
    JSONArray logits = new JSONArray();
    JSONArray own = new JSONArray();
    float[] first = null;
    for (int i = 0; i < images.length(); i++) {
      float[] input = new float[model.contract().inputLength()];
      for (int k = 0; k < input.length; k++) input[k] = inputs.getFloat();
      start = SystemClock.elapsedRealtimeNanos();
      logits.put(json(model.logits(input)));
      if (first == null) {
        results.put("first_ms", since(start));
        first = input;
      }
      try (InputStream in = golden.open("golden/" + images.getJSONObject(i).getString("file"))) {
        Bitmap image = BitmapFactory.decodeStream(in);
        own.put(json(model.logits(Preprocessor.apply(image, model.contract()))));
      }
    }
    JSONArray runs = new JSONArray();
    for (int i = 0; i < RUNS; i++) {
      start = SystemClock.elapsedRealtimeNanos();
      model.logits(first);
      runs.put(since(start));
    }
    results.put("runs", true).put("logits", logits).put("own_logits", own).put("runs_ms", runs);
    results.put("sqnr_db", sqnr(answers.getJSONArray("logits"), logits));
    results.put("own_sqnr_db", sqnr(answers.getJSONArray("logits"), own));
  }

  /** Signal to noise, dB, over all numbers. */
  private static double sqnr(JSONArray expected, JSONArray actual) throws JSONException {
    double signal = 0;
    double noise = 1e-12;
    for (int i = 0; i < expected.length(); i++) {
      for (int k = 0; k < expected.getJSONArray(i).length(); k++) {
        double value = expected.getJSONArray(i).getDouble(k);
        double difference = actual.getJSONArray(i).getDouble(k) - value;
        signal += value * value;
        noise += difference * difference;
      }
    }
    return 10 * Math.log10(signal / noise);
  }

  private static JSONArray json(float[] values) throws JSONException {
    JSONArray row = new JSONArray();
    for (float value : values) {
      boolean finite = !Float.isNaN(value) && !Float.isInfinite(value);
      row.put(finite ? (Object) (double) value : JSONObject.NULL);
    }
    return row;
  }

  private byte[] read(String name) throws IOException {
    try (InputStream in = golden.open("golden/" + name)) {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      byte[] buffer = new byte[1 << 16];
      for (int count; (count = in.read(buffer)) > 0; ) out.write(buffer, 0, count);
      return out.toByteArray();
    }
  }

  private void write(JSONObject results) throws IOException {
    String given =
        InstrumentationRegistry.getArguments().getString("additionalTestOutputDir");
    File folder = given == null ? app.getExternalFilesDir(null) : new File(given);
    try (FileOutputStream out = new FileOutputStream(new File(folder, RESULTS))) {
      out.write(results.toString().getBytes(StandardCharsets.UTF_8));
    }
  }

  private static double since(long start) {
    return (SystemClock.elapsedRealtimeNanos() - start) / 1e6;
  }
}
