fn main() {
    println!("{:?}", tch::Device::Cpu);
    let t = tch::Tensor::ones([2, 2], (tch::Kind::Float, tch::Device::Cpu));
    t.print();
}
