// Classifies photos with a folder of `hf-models export MODEL FOLDER --format aoti`, without Python: see docs/export.md.
//
//   ./classify FOLDER PHOTO.ppm...     (`magick photo.jpg -resize 224x224! -depth 8 photo.ppm` writes such photos)
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <filesystem>
#include <fstream>
#include <iostream>

// Pixels (3, height, width), normalised by the mean and standard deviation of ImageNet.
at::Tensor read_photo(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t width = 0, height = 0, largest = 0;
  file >> kind >> width >> height >> largest;
  TORCH_CHECK(file && kind == "P6" && largest == 255, path, ": expected a PPM file with 8 bits a colour");
  at::Tensor pixels = at::empty({height, width, 3}, at::kByte);
  file.ignore().read(static_cast<char*>(pixels.data_ptr()), pixels.numel());
  TORCH_CHECK(file, path, ": ends before its last pixel");
  at::Tensor mean = at::tensor({0.485f, 0.456f, 0.406f}), deviation = at::tensor({0.229f, 0.224f, 0.225f});
  return ((pixels / 255 - mean) / deviation).permute({2, 0, 1});  // (H, W, 3) -> (3, H, W)
}

int main(int count, char** arguments) try {
  TORCH_CHECK(count > 2, "usage: ", arguments[0], " FOLDER PHOTO.ppm...");
  // A kernel registers its operators when it is loaded; it must be there before the model.
  for (const auto& file : std::filesystem::directory_iterator(arguments[1]))
    if (file.path().extension() == ".so")
      TORCH_CHECK(dlopen(file.path().c_str(), RTLD_LAZY), dlerror());
  torch::inductor::AOTIModelPackageLoader model(std::string(arguments[1]) + "/model.pt2");
  std::vector<at::Tensor> photos;
  for (int i = 2; i < count; ++i) photos.push_back(read_photo(arguments[i]));
  at::Tensor logits = model.run({at::stack(photos)})[0];
  auto [score, best] = logits.softmax(1).max(1);
  for (int i = 2; i < count; ++i)
    std::cout << arguments[i] << ": class " << best[i - 2].item<int64_t>() << ", " << score[i - 2].item<float>() << '\n';
} catch (const c10::Error& error) {
  std::cerr << error.what_without_backtrace() << '\n';
  return 1;
}
