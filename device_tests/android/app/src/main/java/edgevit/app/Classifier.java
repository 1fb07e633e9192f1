package edgevit.app;

import java.io.File;
import java.util.HashMap;
import java.util.Map;
import org.pytorch.Device;
import org.pytorch.IValue;
import org.pytorch.LiteModuleLoader;
import org.pytorch.Module;
import org.pytorch.PyTorchAndroid;
import org.pytorch.Tensor;

/** A .ptl in PyTorch's Lite interpreter. */
final class Classifier implements Model {
  private final Module module;
  private final Contract contract;
  private final long[] shape;

  /** Load a file; PyTorch's own words where it cannot. */
  Classifier(File file) throws ContractException {
    Map<String, String> extra = new HashMap<>();
    extra.put(Contract.FILE, "");
    module = LiteModuleLoader.load(file.getPath(), extra, Device.CPU);
    contract = Contract.parse(extra.get(Contract.FILE));
    shape = new long[] {1, 3, contract.height, contract.width};
  }

  @Override
  public Contract contract() {
    return contract;
  }

  @Override
  public float[] logits(float[] input) {
    IValue answer = module.forward(IValue.from(Tensor.fromBlob(input, shape)));
    return answer.toTensor().getDataAsFloatArray();
  }

  @Override
  public void setThreads(int threads) {
    PyTorchAndroid.setNumThreads(threads);
  }
}
