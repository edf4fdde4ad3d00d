//! Reading a node: attributes with their types checked, and inputs by position.

use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};

use super::tensors::{TensorSource, Tensors};

/// What is wrong with a node, for `LoadError::Operator`.
pub type Result<T> = std::result::Result<T, String>;

/// A node and the constants that it may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    pub proto: &'a NodeProto,
    pub tensors: &'a Tensors,
}

impl<'a> Node<'a> {
    fn attribute(&self, name: &str, kind: AttributeType) -> Result<Option<&'a AttributeProto>> {
        let found = self.proto.attribute.iter().find(|attribute| attribute.name == name);
        match found {
            Some(attribute) if attribute.r#type != kind as i32 => {
                Err(format!("attribute `{name}`: its type is not {}", kind.as_str_name()))
            }
            found => Ok(found),
        }
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.attribute(name, AttributeType::Int)?.map_or(default, |attribute| attribute.i))
    }

    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        let value = self.attribute(name, AttributeType::Float)?;
        let value = value.map_or(default, |attribute| attribute.f);
        if value.is_nan() {
            return Err(format!("attribute `{name}`: not a number"));
        }
        Ok(value)
    }

    pub fn string(&self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.attribute(name, AttributeType::String)? {
            None => Ok(default),
            Some(attribute) => std::str::from_utf8(&attribute.s)
                .map_err(|_| format!("attribute `{name}`: not UTF-8")),
        }
    }

    /// An integer attribute that must be in `min..=max`.
    pub fn size(&self, name: &str, default: i64, min: usize, max: usize) -> Result<usize> {
        let value = self.int(name, default)?;
        usize::try_from(value)
            .ok()
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| format!("attribute `{name}`: {value} is out of range: {min} to {max}"))
    }

    /// Refuses any value of `name` but `only`.
    pub fn refuse_but(&self, name: &str, only: i64, why: &str) -> Result<()> {
        let value = self.int(name, only)?;
        if value == only {
            return Ok(());
        }
        Err(format!("attribute `{name}`: {value}: {why}; export it with {name}={only}"))
    }

    /// The name of input `index`; `None` where it is absent or empty.
    pub fn input(&self, index: usize) -> Option<&'a str> {
        self.proto.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Refuses input `index`, called `role` in the operator's specification.
    pub fn refuse_input(&self, index: usize, role: &str, why: &str) -> Result<()> {
        match self.input(index) {
            None => Ok(()),
            Some(name) => Err(format!("input {role} (`{name}`): {why}")),
        }
    }

    /// The constant at input `index`, if the input is there.
    pub fn constant(&self, index: usize, role: &str) -> Result<Option<&'a TensorSource>> {
        let Some(name) = self.input(index) else { return Ok(None) };
        match self.tensors.get(name) {
            Some(tensor) => Ok(Some(tensor)),
            None => Err(format!(
                "input {role} (`{name}`): not a constant of a type that it may have: \
                 weights must be initializers; export the model with constant weights"
            )),
        }
    }

    /// The constant at input `index`, which must be there.
    pub fn required(&self, index: usize, role: &str) -> Result<&'a TensorSource> {
        self.constant(index, role)?.ok_or_else(|| format!("input {role}: missing"))
    }
}

/// Refuses a tensor whose dimensions are not `dims`.
pub fn check_dims(role: &str, tensor: &TensorSource, dims: &[usize]) -> Result<()> {
    if tensor.dims == dims {
        return Ok(());
    }
    Err(format!("input {role}: shape {:?}: {dims:?} was expected", tensor.dims))
}
