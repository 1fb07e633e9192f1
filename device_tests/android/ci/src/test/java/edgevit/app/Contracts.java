package edgevit.app;

import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/** Contracts for tests. */
final class Contracts {
  private Contracts() {}

  static JSONObject json() throws JSONException {
    JSONObject steps =
        new JSONObject()
            .put("size", new JSONArray("[224, 224]"))
            .put("resize", 248)
            .put("crop_mode", "center")
            .put("interpolation", "bicubic")
            .put("mean", new JSONArray("[0.485, 0.456, 0.406]"))
            .put("std", new JSONArray("[0.229, 0.224, 0.225]"))
            .put("colour_order", "RGB");
    return new JSONObject()
        .put("schema", 1)
        .put("name", "model")
        .put("version", "1.2.3")
        .put("dtype", "float32")
        .put("layout", "NCHW")
        .put("output", "logits")
        .put("input_shape", new JSONArray("[1, 3, 224, 224]"))
        .put("preprocessing", steps)
        .put("labels", new JSONArray("[\"cat\", \"dog\", \"cup\", \"shoe\", \"hat\", \"bag\"]"));
  }

  static Contract valid() throws JSONException, ContractException {
    return Contract.parse(json().toString());
  }
}
