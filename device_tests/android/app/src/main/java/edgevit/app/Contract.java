package edgevit.app;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** How to feed a model and how to read its answer: the contract.json inside the .ptl. */
final class Contract {
  static final String FILE = "contract.json";
  private static final int SCHEMA = 1;
  private static final List<String> STEPS =
      Arrays.asList(
          "size", "resize", "crop_pct", "crop_mode", "interpolation", "mean", "std", "colour_order",
          "orientation", "background"); // the last two only where they are not upright and white

  final String name;
  final String version;
  final int height; // of the model's input, pixels
  final int width;
  final int resize; // pixels of the shorter side, or of both where squash is set
  final boolean squash;
  final Resampler.Filter filter;
  final boolean upright; // turn pictures as their EXIF orientation says
  final int background; // colour behind transparent parts, as Android packs it
  final boolean bgr; // the order of the input's planes, else RGB
  final float[] mean; // of red, green, blue in 0..1
  final float[] std;
  final List<String> labels;
  final Double threshold; // probability above which one logit means the second label; null: softmax

  private Contract(JSONObject json) throws JSONException, ContractException {
    must(json.getInt("schema") == SCHEMA, "its schema is " + json.getInt("schema") + ", not 1");
    equal(json, "dtype", "float32");
    equal(json, "layout", "NCHW");
    equal(json, "output", "logits");
    name = json.getString("name");
    version = json.getString("version");
    JSONArray shape = json.getJSONArray("input_shape");
    JSONObject steps = json.getJSONObject("preprocessing");
    JSONArray size = steps.getJSONArray("size");
    height = size.getInt(0);
    width = size.getInt(1);
    must(
        shape.length() == 4
            && shape.getInt(0) == 1
            && shape.getInt(1) == 3
            && shape.getInt(2) == height
            && shape.getInt(3) == width,
        "its input_shape " + shape + " does not go with its size " + size);
    resize = steps.getInt("resize");
    must(height > 0 && width > 0 && resize > 0, "its sizes are not positive");
    String mode = steps.getString("crop_mode");
    must(mode.equals("center") || mode.equals("squash"), lacks("crop_mode", mode));
    squash = mode.equals("squash");
    must(height == width, lacks("size", size.toString()) + "; only squares");
    filter = Resampler.Filter.named(steps.getString("interpolation"));
    must(filter != null, lacks("interpolation", steps.getString("interpolation")));
    String order = steps.getString("colour_order");
    must(order.equals("RGB") || order.equals("BGR"), lacks("colour_order", order));
    bgr = order.equals("BGR");
    String orientation = steps.optString("orientation", "upright");
    upright = orientation.equals("upright");
    must(upright || orientation.equals("stored"), lacks("orientation", orientation));
    background = steps.has("background") ? colour(steps.getJSONArray("background")) : 0xFFFFFFFF;
    for (Iterator<String> keys = steps.keys(); keys.hasNext(); ) {
      String key = keys.next();
      must(STEPS.contains(key), lacks("step", key));
    }
    mean = three(steps, "mean");
    std = three(steps, "std");
    for (float deviation : std) must(deviation > 0, "its std is not positive");
    List<String> names = new ArrayList<>();
    JSONArray given = json.getJSONArray("labels");
    for (int i = 0; i < given.length(); i++) names.add(given.getString(i));
    labels = Collections.unmodifiableList(names);
    String activation = json.optString("activation", "softmax");
    boolean sigmoid = activation.equals("sigmoid");
    must(sigmoid || activation.equals("softmax"), lacks("activation", activation));
    threshold = sigmoid ? json.getDouble("threshold") : null;
    must(
        !sigmoid || threshold > 0 && threshold < 1 && names.size() == 2,
        "a sigmoid needs a threshold between 0 and 1, and two labels");
  }

  /** Read a contract; what it asks and this app lacks is an error that says so. */
  static Contract parse(String json) throws ContractException {
    if (json == null || json.isEmpty()) {
      throw new ContractException("The model carries no contract; was it made by edge-vit?");
    }
    try {
      return new Contract(new JSONObject(json));
    } catch (JSONException error) {
      throw new ContractException("The model's contract cannot be read: " + error.getMessage());
    }
  }

  /** How many numbers the model takes. */
  int inputLength() {
    return 3 * height * width;
  }

  private static int colour(JSONArray parts) throws JSONException, ContractException {
    must(parts.length() == 3, "its background has not three values");
    int packed = 0xFF;
    for (int i = 0; i < 3; i++) {
      int part = parts.getInt(i);
      must(part >= 0 && part <= 255, lacks("background", parts.toString()));
      packed = packed << 8 | part;
    }
    return packed;
  }

  private static float[] three(JSONObject json, String key)
      throws JSONException, ContractException {
    JSONArray values = json.getJSONArray(key);
    must(values.length() == 3, "its " + key + " has not three values");
    float[] out = new float[3];
    for (int i = 0; i < 3; i++) out[i] = (float) values.getDouble(i);
    return out;
  }

  private static void equal(JSONObject json, String key, String expected)
      throws JSONException, ContractException {
    must(json.getString(key).equals(expected), lacks(key, json.getString(key)));
  }

  private static String lacks(String key, String value) {
    return "it asks for " + key + " " + value + ", which this app lacks";
  }

  private static void must(boolean holds, String otherwise) throws ContractException {
    if (!holds) {
      throw new ContractException("This app cannot follow the model's contract: " + otherwise);
    }
  }
}
